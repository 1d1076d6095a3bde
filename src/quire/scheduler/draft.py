"""Draft: a plan in the making: what rows compute, and what changed since the last plan.

Knows no completions and no blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from quire.config import SchedulerConfig
from quire.scheduler.row_table import Index, RowTable
from quire.step import JoinedRow, RowToken


def step_budget(limits: SchedulerConfig, num_wanted: int, num_decoding: int) -> int:
    """The most tokens of a step when ``num_wanted`` tokens could be in it.

    While rows decode, tokens that would not fill a whole step are cut into short steps: so the next
    tokens of these rows, and the first ones of the prompts, come sooner, and on a GPU a short step
    is hardly less efficient. Where they would fill it, throughput counts, and the step is whole.
    The caller counts only as many waiting completions as rows are free, so that a long queue alone
    makes no step whole. Cached parts of their prompts count, too, since they are not known yet.
    """
    full, short = limits.max_num_batched_tokens, limits.short_step_tokens
    if short is None or not num_decoding or num_wanted >= full:
        return full
    return min(full, max(short, 2 * num_decoding))


@dataclass(slots=True)
class Draft:
    """Parallel arrays over R rows in queue order, all [R]; and the step's budget."""

    rows: Index
    num_tokens: np.ndarray  # known on the host or on the device
    num_computed: np.ndarray
    counts: np.ndarray  # tokens to compute, may be 0
    budget: int  # tokens of the whole step

    @classmethod
    def wanted(
        cls, table: RowTable, rows: Index, limits: SchedulerConfig, num_waiting: int
    ) -> Draft:
        """What the running ``rows`` compute within the step's budget.

        ``num_waiting``: tokens of completions without a row that could be in the step.
        """
        known, computed = table.num_tokens[rows], table.num_computed[rows]
        counts = known - computed
        decodes = counts == 1  # includes rows that must wait for a result
        is_waiting = known - table.num_confirmed[rows] >= table.max_pending[rows]
        counts[is_waiting | (known >= table.max_len[rows])] = 0
        if limits.long_prefill_token_threshold:
            np.minimum(counts, limits.long_prefill_token_threshold, out=counts)
        num_wanted = int(counts.sum())
        budget = step_budget(limits, num_wanted + num_waiting, int(np.count_nonzero(decodes)))
        if num_wanted > budget:
            # Rows that decode come first, wherever in the queue; no budget is too small for them.
            first = np.where(decodes, counts, 0)
            rest = counts - first
            before = np.cumsum(rest) - rest + first.sum()
            np.clip(budget - before, 0, rest, out=rest)
            counts = first + rest
        return cls(rows=rows, num_tokens=known, num_computed=computed, counts=counts, budget=budget)

    def cut(self, count: int) -> None:
        """Keep only the first ``count`` rows."""
        if count < len(self.rows):
            self._keep(slice(count))

    def add(self, table: RowTable, rows: list[int], counts: list[int]) -> None:
        """Append rows that have just joined."""
        new = np.array(rows, dtype=np.intp)
        self.rows = np.concatenate([self.rows, new])
        self.num_tokens = np.concatenate([self.num_tokens, table.num_tokens[new]])
        self.num_computed = np.concatenate([self.num_computed, table.num_computed[new]])
        self.counts = np.concatenate([self.counts, np.array(counts, dtype=np.int32)])

    def soon_full(self, table: RowTable, num_tokens: int) -> Index:
        """Rows that decode and will need another block after this step, but within ``num_tokens``
        tokens."""
        capacity = table.capacity[self.rows]
        ends = self.num_computed + self.counts
        is_soon = (ends <= capacity) & (ends + num_tokens > capacity) & (self.counts == 1)
        # The last token is never computed; a shared tail needs `KVCacheManager.grow`.
        can_be = (capacity < table.max_len[self.rows] - 1) & ~table.tail_may_be_shared[self.rows]
        return self.rows[is_soon & can_be]

    def drop_idle(self) -> None:
        """Keep only the rows that compute something."""
        if np.count_nonzero(self.counts) < len(self.counts):
            self._keep(self.counts > 0)

    def _keep(self, which: slice | np.ndarray) -> None:
        self.rows = self.rows[which]
        self.num_tokens = self.num_tokens[which]
        self.num_computed = self.num_computed[which]
        self.counts = self.counts[which]


@dataclass(slots=True)
class Changes:
    """What the next plan must tell the worker, apart from blocks."""

    left: list[int] = field(default_factory=list)
    joined: list[JoinedRow] = field(default_factory=list)
    tokens: list[RowToken] = field(default_factory=list)
