"""Steady rows: while the same rows decode, the next plan is the one before, a token further.

For how many steps is known in advance: until a row needs a block or reaches its last token. Such a
step looks at no row. Whenever rows change, the scheduler makes a new array of them, by which it is
seen that this no longer holds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quire.scheduler.row_table import Index, RowTable
from quire.step import Bool, Int32, StepPlan


@dataclass(slots=True)
class SteadyRows:
    """Rows each of which computes one token per step and samples the next."""

    rows: Index  # the same object as the scheduler's
    num_left: int  # steps that can still be planned so
    max_in_flight: int  # a step is planned only when fewer are in flight
    _rows: Int32
    _epochs: Int32
    _ones: Int32
    _samples: Bool
    _is_here: Int32  # [max_rows], 1 for these rows, else 0
    _num_computed: Int32  # for the next plan

    @classmethod
    def after(cls, plan: StepPlan, rows: Index, table: RowTable) -> SteadyRows | None:
        """The steady rows after ``plan``, a decode step of all ``rows``; None where a row needs
        more than its next token."""
        wants_more = table.is_beam[rows] | table.has_siblings[rows] | table.tail_may_be_shared[rows]
        if np.count_nonzero(wants_more):
            return None
        num_computed = table.num_computed[rows]
        to_block = table.capacity[rows] - num_computed
        to_end = table.max_len[rows] - table.num_tokens[rows]
        num_left = int(np.minimum(to_block, to_end).min())
        if num_left < 1:
            return None
        is_here = np.zeros_like(table.num_computed)
        is_here[rows] = 1
        return cls(
            rows=rows,
            num_left=num_left,
            max_in_flight=int(table.max_pending[rows].min()),
            _rows=plan.rows,
            _epochs=plan.epochs,
            _ones=plan.num_scheduled,
            _samples=plan.samples,
            _is_here=is_here,
            _num_computed=num_computed,
        )

    def next_plan(self, step_id: int, table: RowTable) -> StepPlan:
        """The next plan, whose arrays are those of the plan before, except ``num_computed``."""
        plan = StepPlan(
            step_id=step_id,
            rows=self._rows,
            num_computed=self._num_computed,
            num_scheduled=self._ones,
            samples=self._samples,
            epochs=self._epochs,
            num_tokens=len(self._rows),
            samples_all=True,
        )
        self.num_left -= 1
        self._num_computed = self._num_computed + 1  # a new array: the plan has the old one
        table.num_computed += self._is_here
        table.num_tokens += self._is_here
        return plan


class LookAhead:
    """Finds out when rows are steady, and plans their steps."""

    def __init__(self, table: RowTable) -> None:
        self._table = table
        self._decoded: Index | None = None  # the rows of the last plan, if it was a decode step
        self._steady: SteadyRows | None = None

    def can_plan(self, rows: Index | None, num_in_flight: int) -> bool:
        """Whether the rows' next step is one more decode step of them all. If a row had joined or
        left, ``rows`` would be another array."""
        steady = self._steady
        return (
            steady is not None
            and steady.rows is rows
            and steady.num_left > 0
            and num_in_flight < steady.max_in_flight
        )

    def next_plan(self, step_id: int) -> StepPlan:
        assert self._steady is not None
        return self._steady.next_plan(step_id, self._table)

    def follow(self, plan: StepPlan, is_of_all: bool, rows: Index) -> None:
        """Note a ``plan`` of ``rows`` that was made row by row. After two decode steps in a row of
        all that run, they are steady."""
        if not (is_of_all and plan.is_decode):
            self._decoded = self._steady = None
        elif self._decoded is rows:
            self._steady = SteadyRows.after(plan, rows, self._table)
        else:
            self._decoded = rows
