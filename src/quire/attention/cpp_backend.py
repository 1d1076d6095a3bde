"""Paged attention on a CPU: rows with one query by our own C++ kernel, the others by torch.

The kernel reads keys and values where they lie. Prompts are large matrix products, for which torch
has the CPU's matrix instructions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem, reasons_of_cache
from quire.attention.shared_prefix import shared_prefixes
from quire.attention.some_rows import some_rows
from quire.attention.torch_backend import TorchAttention
from quire.batch import Batch
from quire.kernels.cpp import library
from quire.kernels.cpp.attention import Prefixes, attend_rows

_MIN_SAVED_TOKENS = 256  # keys that need not be read again; fewer are not worth a merge


@dataclass(frozen=True, kw_only=True, slots=True)
class CppPlan:
    """What the layers of a group share in a step."""

    block_table: Tensor  # [R, B] of the rows with one query, which come first
    seq_lens: Tensor  # [R]
    prefixes: Prefixes | None
    others: Any  # the plan of the other rows; None if there are none
    decode_rows: ClassVar[None] = None  # there is no such launch on a CPU


class CppAttention:
    """The backend ``cpp``: every option."""

    def __init__(self, problem: AttentionProblem, others: TorchAttention) -> None:
        self._problem = problem
        self._others = others
        slopes = problem.alibi_slopes
        self._slopes = None if slopes is None else torch.tensor(slopes, dtype=torch.float32)

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = TorchAttention.why_not(problem)
        if problem.device == "cpu":
            reasons += library.why_not()
        reasons += reasons_of_cache(problem)
        return reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> CppAttention:
        return cls(problem, TorchAttention.build(problem))

    def plan(self, batch: Batch, group: int) -> CppPlan:
        count, num_rows = batch.num_decode_rows, len(batch.seq_lens)
        assert count is not None, "there are no graphs on a CPU"
        others = None
        if count < num_rows:
            others = self._others.plan(some_rows(batch, count, num_rows)[1], group)
        table, seq_lens = batch.groups[group].block_table[:count], batch.seq_lens[:count]
        prefixes = None
        if count > 1 and self._problem.window is None:
            prefixes = _prefixes(table, seq_lens, block_size=batch.kv_caches[0].shape[2])
        return CppPlan(block_table=table, seq_lens=seq_lens, prefixes=prefixes, others=others)

    def forward(
        self, q: Tensor, kv_cache: Tensor, plan: CppPlan, sinks: Tensor | None = None
    ) -> Tensor:
        problem, count = self._problem, len(plan.seq_lens)
        if count == 0:
            return self._others.forward(q, kv_cache, plan.others, sinks)
        out = q.new_empty(*q.shape[:2], problem.value_dim or problem.head_dim)
        attend_rows(
            q[:count].contiguous(),
            kv_cache,
            plan.block_table,
            plan.seq_lens,
            scale=problem.scale,
            window=problem.window,
            soft_cap=problem.soft_cap,
            alibi_slopes=self._slopes,
            sinks=sinks,
            value_dim=problem.value_dim,
            prefixes=plan.prefixes,
            out=out[:count],
        )
        if plan.others is not None:
            out[count:] = self._others.forward(q[count:], kv_cache, plan.others, sinks)
        return out


def _prefixes(block_table: Tensor, seq_lens: Tensor, *, block_size: int) -> Prefixes | None:
    """The prefixes that rows with one query share."""
    found = shared_prefixes(
        block_table.numpy(),
        (seq_lens.numpy() - 1) // block_size,
        min_saved_blocks=-(-_MIN_SAVED_TOKENS // block_size),
    )
    if not found:
        return None
    counts = [0, *(len(prefix.rows) for prefix in found)]
    return Prefixes(
        members=torch.from_numpy(np.concatenate([prefix.rows for prefix in found])),
        first_member=torch.tensor(counts).cumsum(0),
        lens=torch.tensor([prefix.num_blocks * block_size for prefix in found]),
    )
