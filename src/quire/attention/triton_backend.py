"""Paged attention by our own Triton kernels.

One launch takes the rows with one query, one the others; in a mixed graph each looks at all rows,
since only the device knows which they are. A prefix that the rows of a decode step share is read by
a launch of its own, before.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.batch import Batch, SharedBlocks
from quire.kernels.triton.attention import (
    AttentionShape,
    PrefixSums,
    Workspace,
    best_tile,
    paged_attention,
)
from quire.kernels.triton.attention_prefix import attend_prefix, prefix_sums

_LARGEST_HEAD = 256
_INTERPRETED_PROCESSORS = 8  # without a GPU; enough for the keys to be split
# That keys are split for, so that reads of one hide waits of another.
_PROGRAMS_PER_PROCESSOR = 4
_PREFIX_PROGRAMS_PER_PROCESSOR = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """Rows that one launch attends for. Its tokens are those at ``tokens`` of the batch."""

    tokens: slice
    block_table: Tensor  # [R, B]
    seq_lens: Tensor  # [R]
    query_start: Tensor  # [R + 1], from the first of its tokens on
    is_decode: bool
    is_mixed: bool = False
    order: Tensor | None = None  # [R], of decode rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefix:
    """A prefix that rows of a decode step share, and the sums over it."""

    members: Tensor
    sums: PrefixSums


@dataclass(frozen=True, kw_only=True, slots=True)
class TritonPlan:
    """What the layers of a group share in a step."""

    launches: tuple[Launch, ...]
    prefix: Prefix | None = None  # of the one launch


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
        num_processors = (
            torch.cuda.get_device_properties(device).multi_processor_count
            if device.type == "cuda"
            else _INTERPRETED_PROCESSORS
        )
        self._max_prefix_programs = _PREFIX_PROGRAMS_PER_PROCESSOR * num_processors
        # Of launches without decode rows, and with them.
        self._workspaces = tuple(
            Workspace.of(
                _PROGRAMS_PER_PROCESSOR * num_processors,
                best_tile(self._shape, problem.dtype, is_decode=is_decode).block_m,
                self._shape.padded_dim,
                device,
            )
            for is_decode in (False, True)
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
        if problem.head_dim > _LARGEST_HEAD:
            reasons.append(f"heads of {problem.head_dim} values are larger than {_LARGEST_HEAD}")
        return reasons

    @classmethod
    def build(cls, problem: AttentionProblem) -> TritonAttention:
        return cls(problem)

    def plan(self, batch: Batch, group: int) -> TritonPlan:
        table, shared = batch.groups[group].block_table, batch.groups[group].shared
        num_decode, num_rows = batch.num_decode_rows, len(batch.seq_lens)
        if batch.is_mixed_graph:
            return TritonPlan(
                launches=tuple(
                    Launch(
                        tokens=slice(None),
                        block_table=table,
                        seq_lens=batch.seq_lens,
                        query_start=batch.query_start,
                        is_decode=is_decode,
                        is_mixed=True,
                    )
                    for is_decode in (True, False)
                ),
            )
        launches = []
        if num_decode:
            launches.append(_launch_of(batch, table, 0, num_decode))
        if num_decode < num_rows:
            launches.append(_launch_of(batch, table, num_decode, num_rows))
        return TritonPlan(
            launches=tuple(launches),
            prefix=None if shared is None else self._plan_prefix(shared, batch),
        )

    def forward(self, q: Tensor, kv_cache: Tensor, plan: TritonPlan) -> Tensor:
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
                alibi_slopes=self._slopes,
            )
        return out

    def _plan_prefix(self, shared: SharedBlocks, batch: Batch) -> Prefix:
        assert batch.num_decode_rows == len(batch.seq_lens), "a prefix of rows of one query only"
        sums = prefix_sums(shared.num_blocks, self._shape, self._dtype, self._max_prefix_programs)
        return Prefix(members=shared.members, sums=sums)


def _launch_of(batch: Batch, table: Tensor, first: int, last: int) -> Launch:
    """Of rows ``first`` to ``last``: the decode rows, or all those behind them."""
    is_decode = last == batch.num_decode_rows
    return Launch(
        # A decode row has one token, so that rows and tokens are counted alike up to ``first``.
        tokens=slice(first, last if is_decode else None),
        block_table=table[first:last],
        seq_lens=batch.seq_lens[first:last],
        query_start=batch.query_start[first:] - first if first else batch.query_start,
        is_decode=is_decode,
        order=_order_of(batch) if is_decode else None,
    )


def _order_of(batch: Batch) -> Tensor:
    """Of the decode rows, which come first; as they come where no other order is given, so that
    all decode steps run the same kernel."""
    if batch.decode_order is not None:
        return batch.decode_order
    return batch.query_start[: batch.num_decode_rows]  # 0, 1, 2, ...: each has one token
