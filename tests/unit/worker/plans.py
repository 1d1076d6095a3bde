"""Plans made by hand: a host that knows its rows' lengths and gives them blocks as they grow."""

from __future__ import annotations

import random

import numpy as np

from quire.request import RowSampling
from quire.step import JoinedRow, RowToken, StepPlan, TableEntries

GREEDY = RowSampling(temperature=0.0)


class PlanWriter:
    """Keeps what a scheduler keeps of each row: length, tokens computed, blocks."""

    def __init__(self, *, num_blocks: int, block_size: int, num_groups: int) -> None:
        self._free = list(range(1, num_blocks))
        random.Random(0).shuffle(self._free)
        self._block_size = block_size
        self._num_groups = num_groups
        self._step_id = 0
        self.num_tokens: dict[int, int] = {}
        self.num_computed: dict[int, int] = {}
        self.tables: dict[int, list[list[int]]] = {}  # row -> per group
        self._left: list[int] = []
        self._copies: list[tuple[int, int]] = []
        self._joined: list[JoinedRow] = []
        self._blocks: list[TableEntries] = []
        self._tokens: list[RowToken] = []

    def join(
        self,
        row: int,
        token_ids: list[int],
        sampling: RowSampling = GREEDY,
        *,
        num_prompt_tokens: int | None = None,
        num_computed: int = 0,
        tables: list[list[int]] | None = None,
    ) -> None:
        """A completion takes a row, perhaps with blocks that others have computed."""
        self.num_tokens[row] = len(token_ids)
        self.num_computed[row] = num_computed
        self.tables[row] = tables or [[] for _ in range(self._num_groups)]
        while len(self.tables[row][0]) * self._block_size < len(token_ids):
            for entries in self.tables[row]:
                entries.append(self._free.pop())
        self._joined.append(
            JoinedRow(
                row=row,
                token_ids=np.asarray(token_ids, dtype=np.int32),
                num_prompt_tokens=num_prompt_tokens or len(token_ids),
                block_ids=tuple(list(entries) for entries in self.tables[row]),
                sampling=sampling,
            )
        )

    def leave(self, row: int) -> None:
        """A completion gives its row and its blocks back; another may take them in this plan."""
        self._left.append(row)
        for entries in self.tables.pop(row):
            self._free.extend(entries)

    def copied_tables(self, row: int) -> list[list[int]]:
        """New blocks that the next plan fills with the contents of the row's."""
        tables = []
        for entries in self.tables[row]:
            targets = [self._free.pop() for _ in entries]
            self._copies += zip(entries, targets, strict=True)
            tables.append(targets)
        return tables

    def write_token(self, row: int, position: int, token_id: int) -> None:
        self._tokens.append(RowToken(row=row, position=position, token_id=token_id))

    def plan(self, counts: dict[int, int]) -> StepPlan:
        """Compute so many tokens of each row; a row that reaches its last token samples."""
        for row, count in counts.items():
            self._grow(row, self.num_computed[row] + count)
        self._step_id += 1
        rows = list(counts)
        starts = [self.num_computed[row] for row in rows]
        samples = [self.num_computed[row] + counts[row] == self.num_tokens[row] for row in rows]
        for row, does_sample in zip(rows, samples, strict=True):
            self.num_computed[row] += counts[row]
            self.num_tokens[row] += does_sample
        plan = StepPlan(
            step_id=self._step_id,
            left=self._left,
            copies=self._copies,
            joined=self._joined,
            blocks=self._blocks,
            tokens=self._tokens,
            rows=np.asarray(rows, dtype=np.int32),
            num_computed=np.asarray(starts, dtype=np.int32),
            num_scheduled=np.asarray(list(counts.values()), dtype=np.int32),
            samples=np.asarray(samples, dtype=np.bool_),
            epochs=np.zeros(len(rows), dtype=np.int32),
        )
        self._left, self._copies, self._joined, self._blocks, self._tokens = [], [], [], [], []
        return plan

    def _grow(self, row: int, end: int) -> None:
        while len(self.tables[row][0]) * self._block_size < end:
            for group, entries in enumerate(self.tables[row]):
                entries.append(self._free.pop())
                change = TableEntries.of_row(row, group, len(entries) - 1, entries[-1:])
                self._blocks.append(change)
