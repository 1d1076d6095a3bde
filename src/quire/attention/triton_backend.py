"""Paged attention by our own Triton kernels.

A prefix that the rows of a decode step share is read by a launch of its own, before the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from quire import platform
from quire.attention.backend import AttentionBackend, AttentionProblem
from quire.attention.launches import Launch, count_processors, plan_launches
from quire.attention.triton_latent import TritonLatentAttention
from quire.batch import Batch, SharedBlocks
from quire.dtypes import name_of
from quire.kernels.shapes import DecodeRows
from quire.kernels.triton.attention import (
    AttentionShape,
    PrefixSums,
    Workspace,
    best_tile,
    most_tiles,
    paged_attention,
)
from quire.kernels.triton.attention_prefix import attend_prefix, prefix_sums
from quire.kernels.triton.attention_tiles import prompt_tiles

_LARGEST_HEAD = 256
# The least compute capability that can convert to it: that of Ada, and of Ampere.
_OLDEST_WITH = {torch.float8_e4m3fn: (8, 9), torch.float8_e5m2: (8, 0)}
_PREFIX_PROGRAMS_PER_PROCESSOR = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """A prefix that rows of a decode step share, and the sums over it."""

    members: Tensor
    sums: PrefixSums


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonPlan:
    """What the layers of a group share in a step."""

    launches: tuple[Launch, ...]
    prefix: Prefix | None = None  # where there is only one launch, of decode rows

    @property
    def decode_rows(self) -> DecodeRows | None:
        """All rows of the step, if each has one query and no prefix is read by itself."""
        first = self.launches[0]
        if len(self.launches) > 1 or not first.is_decode or self.prefix is not None:
            return None
        assert first.order is not None  # a launch of decode rows alone has one
        return DecodeRows(block_table=first.block_table, seq_lens=first.seq_lens, order=first.order)


class TritonAttention:
    """The backend ``triton``. Reads no length on the device, so its launches can be captured."""

    def __init__(self, problem: AttentionProblem) -> None:
        self._shape = AttentionShape(
            num_kv_heads=problem.num_kv_heads,
            group=problem.num_heads // problem.num_kv_heads,
            head_dim=problem.head_dim,
            scale=problem.scale,
            window=problem.window,
            soft_cap=problem.soft_cap,
        )
        self._dtype = problem.dtype
        device = torch.device(problem.device)
        num_processors = count_processors(device)
        self._max_prefix_programs = _PREFIX_PROGRAMS_PER_PROCESSOR * num_processors
        # Indexed by whether the launch is one of decode rows, as `_workspaces` is.
        tiles = [
            best_tile(self._shape, problem.dtype, is_decode=is_decode)
            for is_decode in (False, True)
        ]
        self._block_q = tiles[False].block_q
        self._workspaces = tuple(
            Workspace.of(
                tile.programs * num_processors, tile.block_m, self._shape.padded_dim, device
            )
            for tile in tiles
        )
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
        if problem.device == "cuda" and problem.cache_dtype is not None:
            reasons += _why_not_cached(problem.cache_dtype)
        if problem.value_dim is not None:
            return reasons + TritonLatentAttention.why_not(problem)
        if problem.head_dim > _LARGEST_HEAD:
            reasons.append(f"heads of {problem.head_dim} values are larger than {_LARGEST_HEAD}")
        return reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> AttentionBackend:
        return cls(problem) if problem.value_dim is None else TritonLatentAttention(problem)

    def plan(self, batch: Batch, group: int) -> TritonPlan:
        shared = batch.groups[group].shared
        launches = plan_launches(batch, group)
        if batch.num_decode_rows is None:
            launches = tuple(self._with_tiles(launch, len(batch.input_ids)) for launch in launches)
        return TritonPlan(
            launches=launches,
            prefix=None if shared is None else self._plan_prefix(shared, batch),
        )

    def forward(
        self, q: Tensor, kv_cache: Tensor, plan: TritonPlan, sinks: Tensor | None = None
    ) -> Tensor:
        out = torch.empty_like(q)
        if plan.prefix is not None:
            (launch,) = plan.launches
            attend_prefix(
                plan.prefix.sums,
                q,
                kv_cache,
                launch.block_table,
                launch.seq_lens,
                plan.prefix.members,
                self._shape,
                alibi_slopes=self._slopes,
            )
        for launch in plan.launches:
            paged_attention(
                out[launch.tokens],
                q[launch.tokens],
                kv_cache,
                launch.block_table,
                launch.query_start,
                launch.seq_lens,
                self._shape,
                is_decode=launch.is_decode,
                is_mixed=launch.is_mixed,
                workspace=self._workspaces[launch.is_decode],
                prefix=None if plan.prefix is None else plan.prefix.sums,
                order=launch.order,
                tiles=launch.tiles,
                alibi_slopes=self._slopes,
                sinks=sinks,
            )
        return out

    def _with_tiles(self, launch: Launch, num_tokens: int) -> Launch:
        if launch.is_decode:
            return launch
        num_tiles = most_tiles(num_tokens, len(launch.seq_lens), self._block_q)
        tiles = prompt_tiles(launch.query_start, self._block_q, num_tiles)
        return replace(launch, tiles=tiles)

    def _plan_prefix(self, shared: SharedBlocks, batch: Batch) -> Prefix:
        assert batch.num_decode_rows == len(batch.seq_lens), "a prefix of rows of one query only"
        sums = prefix_sums(shared.num_blocks, self._shape, self._dtype, self._max_prefix_programs)
        return Prefix(members=shared.members, sums=sums)


def _why_not_cached(dtype: torch.dtype) -> list[str]:
    """Reasons against a cache of 8 bits on this GPU."""
    capability = platform.compute_capability()
    if capability >= _OLDEST_WITH[dtype]:
        return []
    has_other = any(capability >= oldest for oldest in _OLDEST_WITH.values())
    remedy = f"kv_cache_dtype={'fp8_e5m2' if has_other else 'auto'!r}"
    needed = ".".join(map(str, _OLDEST_WITH[dtype]))
    asked = f"kv_cache_dtype={name_of(dtype)!r}"
    return [f"{asked} takes a compute capability of {needed} or more; take {remedy}"]
