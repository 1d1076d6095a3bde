"""Attention of many rows to the blocks that all of them begin with, read once per tile of rows.

A tile is up to BLOCK_Q members, one query each, times the G query heads of a KV head: one matrix
operand, as if it were one row's. The keys are split among programs, so that all processors work.
The results are sums for each split, row and head (`PrefixSums`); the decode launch starts from
them and reads only the rows' own blocks. Two launches in all (cascade attention).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.attention import (
    AttentionShape,
    PrefixSums,
    Tile,
    best_tile,
    precision,
)
from quire.kernels.triton.attention_parts import attend_keys, cut_keys, nothing_seen, store_part
from quire.kernels.triton.launch import await_inputs, dependent_launch


@triton.jit(
    do_not_specialize=["num_rows", "table_stride", "splits"],
    do_not_specialize_on_alignment=["block_table", "seq_lens", "members", "shared_blocks"],
)
def _prefix_kernel(
    prefix_parts, prefix_stats, q, k_cache, v_cache, block_table, seq_lens, members, shared_blocks,
    slopes, num_rows, table_stride, q_stride, splits, scale,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr, PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if tl.load(members + tile * BLOCK_Q) < 0:
        return
    leader = tl.load(members)
    num_keys = tl.load(shared_blocks + leader) * BLOCK_SIZE
    split_keys, num_splits = cut_keys(num_keys, splits, BLOCK_N, 1)
    if split >= num_splits:
        return
    begin = split * split_keys
    end = tl.minimum(num_keys, begin + split_keys)

    num_heads: tl.constexpr = NUM_KV_HEADS * GROUP
    line = tl.arange(0, BLOCK_M)
    member = line // GROUP
    place = tile * BLOCK_Q + member
    is_line = (member < BLOCK_Q) & (place < num_rows)
    rows = tl.load(members + place, mask=is_line, other=-1)
    is_line &= rows >= 0
    heads = kv_head * GROUP + line % GROUP
    positions = tl.load(seq_lens + rows, mask=is_line, other=0) - 1
    columns = tl.arange(0, D_PAD)
    queries = tl.load(
        q + rows[:, None].to(tl.int64) * q_stride + heads[:, None] * D + columns[None, :],
        mask=is_line[:, None] & (columns < D)[None, :],
        other=0.0,
    )
    head_slopes = tl.load(slopes + heads, mask=is_line, other=0.0) if HAS_ALIBI else 0.0

    table = block_table + leader.to(tl.int64) * table_stride
    first_masked = begin + (end - begin) // BLOCK_N * BLOCK_N
    best, total, acc = nothing_seen(BLOCK_M, D_PAD)
    best, total, acc = attend_keys(
        best, total, acc, begin, first_masked,
        queries, positions, head_slopes, k_cache, v_cache, table, kv_head, scale,
        NUM_KV_HEADS, D, D_PAD, BLOCK_SIZE, BLOCK_N, 0, SOFT_CAP, HAS_ALIBI, PRECISION, False,
    )  # fmt: skip
    if BLOCK_SIZE % BLOCK_N != 0:
        best, total, acc = attend_keys(
            best, total, acc, first_masked, end,
            queries, positions, head_slopes, k_cache, v_cache, table, kv_head, scale,
            NUM_KV_HEADS, D, D_PAD, BLOCK_SIZE, BLOCK_N, 0, SOFT_CAP, HAS_ALIBI, PRECISION, True,
        )  # fmt: skip
    where = (split * num_rows + rows) * num_heads + heads
    store_part(prefix_parts, prefix_stats, where, best, total, acc, is_line, D_PAD)


def prefix_sums(
    num_blocks: Tensor,
    shape: AttentionShape,
    dtype: torch.dtype,
    max_programs: int,
    tile: Tile | None = None,
) -> PrefixSums:
    """Memory for the sums over the first ``num_blocks`` [R] blocks of rows; it serves all layers.

    The keys are split so that the launch has at most ``max_programs`` programs.
    """
    tile = tile or best_prefix_tile(shape, dtype)
    num_rows = len(num_blocks)
    num_programs = triton.cdiv(num_rows, tile.block_q) * shape.num_kv_heads
    splits = 1 << max(0, (max_programs // num_programs).bit_length() - 1)
    lines = (splits, num_rows, shape.num_kv_heads * shape.group)
    device = num_blocks.device
    return PrefixSums(
        parts=torch.empty((*lines, shape.padded_dim), dtype=torch.float32, device=device),
        stats=torch.empty((*lines, 2), dtype=torch.float32, device=device),
        num_blocks=num_blocks,
        splits=splits,
        block_n=tile.block_n,
    )


def attend_prefix(
    sums: PrefixSums,
    q: Tensor,
    kv_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    members: Tensor,
    shape: AttentionShape,
    *,
    alibi_slopes: Tensor | None = None,
    tile: Tile | None = None,
) -> None:
    """Fill ``sums`` for one layer: q [R, H, D] of ``members`` [R] (places of rows, then -1)."""
    assert kv_cache.is_contiguous() and shape.window is None
    tile = tile or best_prefix_tile(shape, q.dtype)
    assert tile.block_n == sums.block_n
    num_rows = len(seq_lens)
    grid = (triton.cdiv(num_rows, tile.block_q), shape.num_kv_heads, sums.splits)
    launcher_of(_prefix_kernel, grid)(
        sums.parts, sums.stats, q, kv_cache[0], kv_cache[1], block_table, seq_lens, members,
        sums.num_blocks, q if alibi_slopes is None else alibi_slopes,
        num_rows, block_table.stride(0), q.stride(0), sums.splits, shape.scale,
        NUM_KV_HEADS=shape.num_kv_heads, GROUP=shape.group,
        D=shape.head_dim, D_PAD=shape.padded_dim, BLOCK_SIZE=kv_cache.shape[2],
        BLOCK_Q=tile.block_q, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        SOFT_CAP=shape.soft_cap or 0.0, HAS_ALIBI=alibi_slopes is not None,
        PRECISION=precision(q.dtype), num_warps=tile.num_warps, num_stages=tile.num_stages,
        **dependent_launch(),
    )  # fmt: skip


def best_prefix_tile(shape: AttentionShape, dtype: torch.dtype) -> Tile:
    """The tile of prompts: members stand where a prompt has its queries."""
    return best_tile(shape, dtype, is_decode=False)
