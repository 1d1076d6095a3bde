"""Paged attention by our own Triton kernel: one launch for decode rows, one for the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.batch import Batch
from quire.kernels.triton.attention import (
    AttentionShape,
    Workspace,
    decode_lines,
    max_splits,
    paged_attention,
)

_LARGEST_HEAD = 256
_INTERPRETED_PROCESSORS = 8  # without a GPU; enough for the keys to be split


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonPlan:
    """What the layers of a group share in a step. Decode rows come first."""

    num_decode_rows: int
    block_table: Tensor  # [R, B]
    seq_lens: Tensor  # [R]
    query_start: Tensor  # of the rows that are not decode rows, from their first token on
    splits: int  # of the decode rows' keys


class TritonAttention:
    """The backend ``triton``. Reads no length on the host, so its launches can be captured."""

    def __init__(self, problem: AttentionProblem) -> None:
        self._shape = AttentionShape(
            num_kv_heads=problem.num_kv_heads,
            group=problem.num_heads // problem.num_kv_heads,
            head_dim=problem.head_dim,
            scale=problem.scale,
            window=problem.window,
            soft_cap=problem.soft_cap,
        )
        device = torch.device(problem.device)
        self._num_processors = (
            torch.cuda.get_device_properties(device).multi_processor_count
            if device.type == "cuda"
            else _INTERPRETED_PROCESSORS
        )
        lines = decode_lines(self._shape)
        self._workspace = Workspace.of(self._num_processors, lines, problem.head_dim, device)
        self._slopes = (
            None
            if problem.alibi_slopes is None
            else torch.tensor(problem.alibi_slopes, dtype=torch.float32, device=device)
        )

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        if problem.device != "cuda":
            reasons.append(f"it needs a GPU and the model is on {problem.device}")
        if problem.num_heads % problem.num_kv_heads:
            reasons.append(
                f"{problem.num_heads} query heads cannot share {problem.num_kv_heads} KV heads "
                "evenly"
            )
        if problem.head_dim > _LARGEST_HEAD:
            reasons.append(f"heads of {problem.head_dim} values are larger than {_LARGEST_HEAD}")
        return reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> TritonAttention:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> TritonPlan:
        num_decode_rows = batch.num_decode_rows
        num_programs = max(1, num_decode_rows * self._shape.num_kv_heads)
        return TritonPlan(
            num_decode_rows=num_decode_rows,
            block_table=batch.groups[group].block_table,
            seq_lens=batch.seq_lens,
            query_start=batch.query_start[num_decode_rows:] - num_decode_rows,
            splits=max_splits(num_programs, self._num_processors),
        )

    def forward(self, q: Tensor, kv_cache: Tensor, plan: TritonPlan) -> Tensor:
        out = torch.empty_like(q)
        first = plan.num_decode_rows
        if first:
            self._attend(out[:first], q[:first], kv_cache, plan, slice(0, first), plan.splits)
        if first < len(plan.seq_lens):
            self._attend(out[first:], q[first:], kv_cache, plan, slice(first, None), 0)
        return out

    def _attend(
        self, out: Tensor, q: Tensor, kv_cache: Tensor, plan: TritonPlan, rows: slice, splits: int
    ) -> None:
        """``splits`` of decode rows; 0: any number of queries a row."""
        paged_attention(
            out,
            q,
            kv_cache,
            plan.block_table[rows],
            plan.query_start,
            plan.seq_lens[rows],
            self._shape,
            is_decode=splits > 0,
            splits=max(1, splits),
            workspace=self._workspace,
            alibi_slopes=self._slopes,
        )
