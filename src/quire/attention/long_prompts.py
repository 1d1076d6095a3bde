"""A backend for the long prompts of a step, by another package's kernels.

It leaves decode rows, short prompts and steps in a graph to the next backend, which may leave some
of them in turn; the last backend is our own kernels. Knows no package.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quire.attention.backend import AttentionBackend, AttentionProblem, PlanOfNext
from quire.attention.some_rows import some_rows
from quire.attention.triton_backend import TritonAttention
from quire.batch import Batch
from quire.kv_layout import NULL_BLOCK
from quire.pinned_memory import upload


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherRows:
    """Consecutive rows that are left to the next backend."""

    tokens: slice
    plan: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class LongPromptPlan:
    """What the layers of a group share in a step that has long prompts."""

    others: tuple[OtherRows, ...]
    prompts: Sequence[Any]  # only the package's backend knows what is in them
    unused: Tensor | None = None  # [N] int64, slots without a token that must hold finite values
    decode_rows: ClassVar[None] = None


class LongPromptAttention(ABC):
    """A backend for long prompts. A subclass decides which those are and calls its package."""

    # Set for a package that multiplies what masks hide by zero, which gives NaN where a block's
    # last owner has left one: a multiple of the number of keys that it reads at once.
    masked_tile: ClassVar[int | None] = None

    def __init__(self, problem: AttentionProblem, rest: AttentionBackend) -> None:
        self._rest = rest
        self._block_size = problem.block_size
        self._visible = problem.window

    @staticmethod
    @abstractmethod
    def why_not(problem: AttentionProblem) -> list[str]: ...

    @classmethod
    def build(
        cls, problem: AttentionProblem, rest: AttentionBackend | None = None
    ) -> LongPromptAttention:
        """``rest``: the backend for all other rows; our own kernels if it is None."""
        return cls(problem, TritonAttention.build(problem) if rest is None else rest)

    @abstractmethod
    def are_long(self, query_lens: np.ndarray, seq_lens: np.ndarray) -> np.ndarray:
        """Which of a step's rows the package should compute; bool [R]."""

    @abstractmethod
    def plan_prompts(self, batch: Batch, block_table: Tensor, rows: slice) -> Sequence[Any]:
        """The parts in which ``attend`` computes ``rows``."""

    @abstractmethod
    def attend(self, out: Tensor, q: Tensor, kv_cache: Tensor, part: Any) -> None:
        """Compute one part of `plan_prompts` into its tokens' lines of ``out`` [T, H, D]."""

    def plan(self, batch: Batch, group: int) -> LongPromptPlan | PlanOfNext:
        assert batch.kv_caches[0].shape[2] == self._block_size
        rows = slice(0, 0) if batch.num_decode_rows is None else self._long_rows(batch)
        if rows.start == rows.stop:
            return PlanOfNext(plan=self._rest.plan(batch, group))
        others = []
        for begin, end in ((0, rows.start), (rows.stop, len(batch.seq_lens))):
            if begin < end:
                tokens, part = some_rows(batch, begin, end)
                others.append(OtherRows(tokens=tokens, plan=self._rest.plan(part, group)))
        block_table = self._without_passed_blocks(batch, batch.groups[group].block_table)
        return LongPromptPlan(
            others=tuple(others),
            prompts=self.plan_prompts(batch, block_table, rows),
            unused=self._unused_slots(batch, block_table, rows),
        )

    def forward(
        self,
        q: Tensor,
        kv_cache: Tensor,
        plan: LongPromptPlan | PlanOfNext,
        sinks: Tensor | None = None,
    ) -> Tensor:
        assert sinks is None
        if isinstance(plan, PlanOfNext):
            return self._rest.forward(q, kv_cache, plan.plan)
        out = q.new_empty(q.shape)
        for part in plan.others:
            out[part.tokens] = self._rest.forward(q[part.tokens], kv_cache, part.plan)
        if plan.unused is not None:
            kv_cache.view(2, -1, *kv_cache.shape[3:]).index_fill_(1, plan.unused, 0)
        for prompts in plan.prompts:
            self.attend(out, q, kv_cache, prompts)
        return out

    @property
    def _hides_passed_blocks(self) -> bool:
        return self.masked_tile is not None and self._visible is not None

    def _without_passed_blocks(self, batch: Batch, block_table: Tensor) -> Tensor:
        """``block_table`` with the null block in place of blocks behind the window.

        Those may have new owners, and a tile of keys may begin there and end within the window.
        """
        if not self._hides_passed_blocks:
            return block_table
        query_lens = np.diff(batch.query_start_cpu.numpy())
        first_key = np.maximum(batch.seq_lens_cpu.numpy() - query_lens - self._visible + 1, 0)
        device = block_table.device
        first_block = upload(first_key // self._block_size, device)
        columns = torch.arange(block_table.shape[1], device=device)
        return block_table.masked_fill(columns < first_block[:, None], NULL_BLOCK)

    def _unused_slots(self, batch: Batch, block_table: Tensor, rows: slice) -> Tensor | None:
        """The slots without a token that tiles of keys may reach into; None: there are none.

        They are the rest of the rows' last blocks, which no other row shares, since a step writes
        the last tokens before it attends; and the null block, which follows in the table.
        """
        lengths = batch.seq_lens_cpu.numpy()[rows].astype(np.int64)
        ends_inside = self.masked_tile is not None and (lengths % self.masked_tile).any()
        if not ends_inside and not self._hides_passed_blocks:
            return None
        row, place = spread(-lengths % self._block_size)
        position = lengths[row] + place
        at_row, at = upload(np.stack((rows.start + row, position)), block_table.device)
        blocks = block_table[at_row, at // self._block_size]
        in_last_blocks = blocks * self._block_size + at % self._block_size
        in_null_block = torch.arange(self._block_size, device=blocks.device)
        return torch.cat((in_last_blocks, NULL_BLOCK * self._block_size + in_null_block))

    def _long_rows(self, batch: Batch) -> slice:
        """The rows from the first long one to the last; others between them are included."""
        if batch.max_query_len == 1:
            return slice(0, 0)
        query_lens = np.diff(batch.query_start_cpu.numpy())
        (long,) = np.nonzero(self.are_long(query_lens, batch.seq_lens_cpu.numpy()))
        return slice(int(long[0]), int(long[-1]) + 1) if len(long) else slice(0, 0)


def spread(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Index and place of each of ``counts`` items: [2, 3] -> [0, 0, 1, 1, 1], [0, 1, 0, 1, 2]."""
    which = np.repeat(np.arange(len(counts)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
