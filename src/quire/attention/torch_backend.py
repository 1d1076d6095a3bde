"""Paged attention in torch operations on a CPU: gather the tokens, then multiply, bucket by bucket.

The query heads of a KV head are folded into the query dimension, so keys and values are read once
and never expanded. Indices and masks are made once a step and shared by the layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.attention.attend import build_attend
from quire.attention.backend import AttentionProblem
from quire.attention.bucket import Bucket, build_bucket, build_mask
from quire.attention.pieces import bucket, cut
from quire.batch import Batch
from quire.kernels.reference.attention import write_kv

_MAX_FOLDED_QUERIES = 512  # queries * G of a piece: longer ones waste work above the diagonal
_CALL_COST = 2500  # one more call costs as much as this many (query head, KV token) pairs
_MAX_GATHERED_BYTES = 2 << 20  # keys and values of a bucket: what the caches hold
_MAX_KEPT_SCORES = 1 << 24  # masks of a plan; beyond it they are made anew by each layer


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchPlan:
    """What the layers of a group share in a step."""

    slot_mapping: Tensor  # [T]
    buckets: tuple[tuple[Bucket, Tensor | None], ...]  # with their masks, if small enough to keep


class TorchAttention:
    """The backend ``torch``: every option, on a CPU."""

    def __init__(self, problem: AttentionProblem) -> None:
        self._problem = problem
        self._attend = build_attend(problem)
        self._mask = build_mask(problem)

    @staticmethod
    def why_not(problem: AttentionProblem) -> list[str]:
        reasons = []
        if problem.device != "cpu":
            reasons.append(f"it plans on the host and the model is on {problem.device}")
        if problem.num_heads % problem.num_kv_heads:
            reasons.append(
                f"{problem.num_heads} heads do not share {problem.num_kv_heads} KV heads evenly"
            )
        return reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> TorchAttention:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> TorchPlan:
        problem = self._problem
        block_size = batch.kv_caches[0].shape[2]
        block_bytes = 2 * block_size * problem.num_kv_heads * problem.head_dim
        block_bytes *= problem.dtype.itemsize
        pieces = cut(
            batch.query_start_cpu.numpy().astype(np.int64),
            batch.seq_lens_cpu.numpy().astype(np.int64),
            block_size=block_size,
            window=problem.window,
            max_queries=max(16, _MAX_FOLDED_QUERIES * problem.num_kv_heads // problem.num_heads),
        )
        buckets: list[tuple[Bucket, Tensor | None]] = []
        kept = 0
        for members in bucket(
            pieces,
            max_waste=_CALL_COST // (problem.num_heads * block_size),
            max_blocks=max(1, _MAX_GATHERED_BYTES // block_bytes),
        ):
            one = build_bucket(members, batch, group, problem)
            kept += one.num_scores
            buckets.append((one, self._mask(one) if kept <= _MAX_KEPT_SCORES else None))
        slot_mapping = batch.groups[group].slot_mapping
        return TorchPlan(slot_mapping=slot_mapping, buckets=tuple(buckets))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, kv_cache: Tensor, plan: TorchPlan) -> Tensor:
        write_kv(k, v, kv_cache, plan.slot_mapping)
        head_dim = self._problem.head_dim
        queries, cached = q.reshape(-1, head_dim), kv_cache.view(-1, head_dim)
        out = torch.empty_like(queries)
        for one, kept_mask in plan.buckets:
            keys, values = _take(cached, one.cache_heads)
            mask = self._mask(one) if kept_mask is None else kept_mask
            attended = self._attend(_take(queries, one.query_heads), keys, values, mask)
            out.index_copy_(0, one.query_heads.flatten(), attended.reshape(-1, head_dim))
        return out.view(q.shape)


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """Rows [*, D] in the shape of the index."""
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape)
