"""Paged attention in torch operations on a CPU: gather the tokens, then multiply, bucket by bucket.

The query heads of a KV head are folded into the query dimension, so keys and values are read once
and never expanded; a prefix that many rows share is read once for all of them. Indices and masks
are made once per step and shared by the layers. In a cache, one head's tokens of a block lie
together (`worker.kv_memory`), so that the gather copies long runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from quire.attention.attend import build_attend, build_attend_part, merge
from quire.attention.backend import AttentionProblem
from quire.attention.bucket import Bucket, build_bucket, build_mask, build_prefix_bucket
from quire.attention.pieces import Pieces, bucket, cut
from quire.attention.shared_prefix import SharedPrefix, shared_prefixes
from quire.batch import Batch
from quire.kernels.cpu.eight_bits import widened

_MAX_FOLDED_QUERIES = 512  # queries * G of a piece: longer ones waste work above the diagonal
_CALL_COST = 2500  # one more call costs as much as this many (query head, KV token) pairs
_PREFIX_COST = 4 * _CALL_COST  # and a shared prefix, with its merge, as this many
_MAX_GATHERED_BYTES = 2 << 20  # keys and values of a bucket: what the CPU's caches hold
_MAX_KEPT_SCORES = 1 << 24  # in masks that a plan keeps; each layer makes the others anew


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskedBucket:
    """A bucket, and its mask if it is small enough to keep."""

    bucket: Bucket
    mask: Tensor | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedWork:
    """Rows that share a prefix: all their queries over it at once, and each over the rest."""

    prefix: Bucket
    rest: tuple[MaskedBucket, ...]
    order: Tensor  # which puts the rest's results into the order of the prefix's


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchPlan:
    """What the layers of a group share in a step."""

    buckets: tuple[MaskedBucket, ...]
    shared: tuple[SharedWork, ...]
    order: Tensor  # [T * H], which puts the results of buckets and shared work into that of queries
    decode_rows: ClassVar[None] = None  # there is no such launch on a CPU


class TorchAttention:
    """The backend ``torch``: every option, on a CPU."""

    def __init__(self, problem: AttentionProblem) -> None:
        self._problem = problem
        self._attend = build_attend(problem)
        self._attend_part = build_attend_part(problem)
        self._mask = build_mask(problem)
        self._value_dim = problem.value_dim or problem.head_dim
        # With a window or slopes, each row would need a mask of its own over the prefix.
        self._can_share = problem.window is None and problem.alibi_slopes is None

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
        pieces = cut(
            batch.query_start_cpu.numpy().astype(np.int64),
            batch.seq_lens_cpu.numpy().astype(np.int64),
            block_size=batch.kv_caches[0].shape[2],
            window=problem.window,
            max_queries=max(16, _MAX_FOLDED_QUERIES * problem.num_kv_heads // problem.num_heads),
        )
        prefixes = self._shared_prefixes(batch, group) if self._can_share else []
        alone = np.ones(len(batch.seq_lens_cpu), dtype=np.bool_)
        shared = []
        for prefix in prefixes:
            alone[prefix.rows] = False
            members = pieces.take(np.flatnonzero(np.isin(pieces.row, prefix.rows)))
            shared.append(self._plan_shared(members, prefix, batch, group))
        buckets = self._plan_buckets(pieces.take(np.flatnonzero(alone[pieces.row])), batch, group)
        return TorchPlan(
            buckets=buckets,
            shared=tuple(shared),
            order=_places(
                [*(one.bucket for one in buckets), *(one.prefix for one in shared)],
                batch.input_ids.numel() * problem.num_heads,
            ),
        )

    def forward(
        self, q: Tensor, kv_cache: Tensor, plan: TorchPlan, sinks: Tensor | None = None
    ) -> Tensor:
        head_dim = self._problem.head_dim
        block_size = kv_cache.shape[2]
        queries = q.reshape(-1, head_dim)
        cached = kv_cache.transpose(2, 3).view(-1, block_size, head_dim)
        if sinks is None:
            results = [self._attend_bucket(queries, cached, one) for one in plan.buckets]
            results += [self._attend_shared(queries, cached, one)[0] for one in plan.shared]
            return torch.cat(results).index_select(0, plan.order).view(*q.shape[:2], -1)
        parts = [self._attend_masked(queries, cached, one) for one in plan.buckets]
        parts += [self._attend_shared(queries, cached, one) for one in plan.shared]
        attended, log_sums = (
            torch.cat(some).index_select(0, plan.order).unflatten(0, q.shape[:2])
            for some in zip(*parts, strict=True)
        )
        # the share of the softmax that the sink leaves
        return attended * torch.sigmoid(log_sums - sinks).to(q.dtype).unsqueeze(-1)

    def _attend_bucket(self, queries: Tensor, cached: Tensor, one: MaskedBucket) -> Tensor:
        """Results [N * K * Q * G, D] of one bucket."""
        keys, values = self._keys_values(cached, one.bucket)
        mask = self._mask(one.bucket) if one.mask is None else one.mask
        attended = self._attend(_take(queries, one.bucket.query_heads), keys, values, mask)
        return attended.reshape(-1, self._value_dim)

    def _attend_shared(
        self, queries: Tensor, cached: Tensor, work: SharedWork
    ) -> tuple[Tensor, Tensor]:
        """Results and log-sum-exps in the order of the prefix's queries."""
        prefix, prefix_sums = self._attend_some(queries, cached, work.prefix, None)
        parts = [self._attend_masked(queries, cached, one) for one in work.rest]
        rest = torch.cat([result for result, _ in parts]).index_select(0, work.order)
        rest_sums = torch.cat([sums for _, sums in parts]).index_select(0, work.order)
        merged = merge(prefix, prefix_sums, rest, rest_sums)
        return merged, torch.logaddexp(prefix_sums, rest_sums)

    def _attend_masked(
        self, queries: Tensor, cached: Tensor, one: MaskedBucket
    ) -> tuple[Tensor, Tensor]:
        mask = self._mask(one.bucket) if one.mask is None else one.mask
        return self._attend_some(queries, cached, one.bucket, mask)

    def _attend_some(
        self, queries: Tensor, cached: Tensor, one: Bucket, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        keys, values = self._keys_values(cached, one)
        result, sums = self._attend_part(_take(queries, one.query_heads), keys, values, mask)
        return result.reshape(-1, self._value_dim), sums.flatten()

    def _keys_values(self, cached: Tensor, one: Bucket) -> tuple[Tensor, Tensor]:
        """Keys and values [N, K, L, D]; a value that is part of its key is the first part."""
        planes = widened(_take(cached, one.cache_heads).flatten(3, 4), self._problem.dtype)
        return planes[0], planes[-1][..., : self._value_dim]

    def _shared_prefixes(self, batch: Batch, group: int) -> list[SharedPrefix]:
        block_size = batch.kv_caches[0].shape[2]
        query_lens = np.diff(batch.query_start_cpu.numpy())
        return shared_prefixes(
            batch.groups[group].block_table.numpy(),
            (batch.seq_lens_cpu.numpy() - query_lens) // block_size,
            min_saved_blocks=1 + _PREFIX_COST // (self._problem.num_heads * block_size),
        )

    def _plan_shared(
        self, pieces: Pieces, prefix: SharedPrefix, batch: Batch, group: int
    ) -> SharedWork:
        one = build_prefix_bucket(pieces, prefix, batch, group, self._problem)
        rest = self._plan_buckets(pieces.without_first(prefix.num_blocks), batch, group)
        num_heads = batch.input_ids.numel() * self._problem.num_heads
        places = _places([masked.bucket for masked in rest], num_heads)
        return SharedWork(prefix=one, rest=rest, order=places[one.query_heads.flatten()])

    def _plan_buckets(self, pieces: Pieces, batch: Batch, group: int) -> tuple[MaskedBucket, ...]:
        problem = self._problem
        block_size = batch.kv_caches[0].shape[2]
        block_bytes = 2 * block_size * problem.num_kv_heads * problem.head_dim
        block_bytes *= problem.dtype.itemsize
        planned = []
        kept = 0
        for members in bucket(
            pieces,
            max_waste=_CALL_COST // (problem.num_heads * block_size),
            max_blocks=max(1, _MAX_GATHERED_BYTES // block_bytes),
        ):
            one = build_bucket(members, batch, group, problem)
            kept += one.num_scores
            mask = self._mask(one) if kept <= _MAX_KEPT_SCORES else None
            planned.append(MaskedBucket(bucket=one, mask=mask))
        return tuple(planned)


def _places(buckets: list[Bucket], num_query_heads: int) -> Tensor:
    """[num_query_heads] The place of each query head's result among those of all buckets in turn.

    A padded query's result is the same as that of the query it repeats, so either will do.
    """
    heads = torch.cat([one.query_heads.flatten() for one in buckets])
    places = torch.zeros(num_query_heads, dtype=torch.int64)
    places[heads] = torch.arange(len(heads))
    return places


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """``rows`` [.., D] at ``index`` [*]: [*, D]."""
    return rows.index_select(0, index.flatten()).unflatten(0, index.shape)
