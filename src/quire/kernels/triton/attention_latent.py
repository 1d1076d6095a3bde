"""Paged causal attention of many heads to one key per token, the first part of which is its value.

So a key is read once for all heads of a tile, and for both products. The rest of the key (its
*tail*: the rotated part of latent attention) takes part in the scores alone. Tiles and
splits are those of `attention`, but the heads may be cut too: a line's sum is as wide as a value,
and 64 such lines are what a program's registers hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.attention import STAGES, Workspace, find_tile, most_tiles, precision
from quire.kernels.triton.attention_parts import (
    LOG2E,
    NOTHING,
    cut_keys,
    join_all,
    nothing_seen,
    others_follow,
    store_part,
)
from quire.kernels.triton.launch import await_inputs, dependent_launch, first_fitting

# The fastest first; a device with less memory than an H200 takes the first that fits.
_LINES = (64, 32, 16)
_MOST_LINES, _LEAST_LINES = _LINES[0], _LINES[-1]
_KEYS = (32, 16)
_LEAST_COLUMNS = 16  # of a matrix operand


@triton.jit
def _attend_latents(
    best, total, acc, begin, end, queries, tails, positions, cache, table, scale,
    V: tl.constexpr, D: tl.constexpr, V_PAD: tl.constexpr, TAIL_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Add keys ``begin`` to ``end`` to the lines' state; queries [M, V], their tails [M, D - V]."""
    column = tl.arange(0, V_PAD)
    tail_column = tl.arange(0, TAIL_PAD)
    token = tl.arange(0, BLOCK_N)
    for key in range(begin, end, BLOCK_N):
        places = key + token
        is_key = places < end
        block = tl.load(table + places // BLOCK_SIZE, mask=is_key, other=0)
        where = cache + (block.to(tl.int64) * BLOCK_SIZE + places % BLOCK_SIZE)[:, None] * D
        values = tl.load(
            where + column[None, :], mask=is_key[:, None] & (column < V)[None, :], other=0.0
        )
        key_tails = tl.load(
            where + V + tail_column[None, :],
            mask=is_key[:, None] & (tail_column < D - V)[None, :],
            other=0.0,
        )
        values, key_tails = values.to(queries.dtype), key_tails.to(queries.dtype)  # from fp8
        scores = tl.dot(queries, tl.trans(values), input_precision=PRECISION)
        scores = tl.dot(tails, tl.trans(key_tails), scores, input_precision=PRECISION)
        is_visible = (positions[:, None] >= places[None, :]) & is_key[None, :]
        scores = tl.where(is_visible, scores * (scale * LOG2E), NOTHING)
        new_best = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp2(best - new_best)
        # in a line that has seen no key yet, hidden keys would count as exp2(0)
        weights = tl.where(is_visible, tl.exp2(scores - new_best[:, None]), 0.0)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(values.dtype), values, acc, input_precision=PRECISION)
        best = new_best
    return best, total, acc


@triton.jit
def _store_values(
    out, acc, total, lines, heads, is_line, NUM_HEADS: tl.constexpr, V: tl.constexpr,
    V_PAD: tl.constexpr,
):  # fmt: skip
    column = tl.arange(0, V_PAD)
    result = acc / tl.maximum(total, 1.0e-30)[:, None]
    where = out + (lines * NUM_HEADS + heads)[:, None].to(tl.int64) * V + column[None, :]
    tl.store(where, result.to(out.dtype.element_ty), mask=is_line[:, None] & (column < V)[None, :])


@triton.jit(
    do_not_specialize=["num_rows", "table_stride", "splits"],
    do_not_specialize_on_alignment=["block_table", "query_start", "seq_lens"],
)
def _latent_kernel(
    out, q, cache, block_table, query_start, seq_lens, parts, part_stats, counters,
    num_rows, table_stride, splits, scale,
    NUM_HEADS: tl.constexpr, GROUP: tl.constexpr, V: tl.constexpr, D: tl.constexpr,
    V_PAD: tl.constexpr, TAIL_PAD: tl.constexpr, BLOCK_SIZE: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, LEAST: tl.constexpr,
    IS_DECODE: tl.constexpr, IS_MIXED: tl.constexpr, PRECISION: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    tile, head_tile, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, first_query, num_queries, first_position = find_tile(
        query_start, seq_lens, tile, num_rows, BLOCK_Q, IS_DECODE, IS_MIXED
    )
    if num_queries <= 0:
        return
    end = first_position + num_queries  # number of keys that the tile's last query sees
    split_keys, num_splits = cut_keys(end, splits, BLOCK_N, LEAST)
    if split >= tl.maximum(num_splits, 1):
        return

    line = tl.arange(0, BLOCK_M)
    query = line // GROUP
    heads = head_tile * GROUP + line % GROUP
    is_line = (query < num_queries) & (heads < NUM_HEADS)
    lines = first_query + query
    column = tl.arange(0, V_PAD)
    tail_column = tl.arange(0, TAIL_PAD)
    query_at = q + ((lines * NUM_HEADS + heads)[:, None]).to(tl.int64) * D
    queries = tl.load(
        query_at + column[None, :], mask=is_line[:, None] & (column < V)[None, :], other=0.0
    )
    tails = tl.load(
        query_at + V + tail_column[None, :],
        mask=is_line[:, None] & (tail_column < D - V)[None, :],
        other=0.0,
    )
    best, total, acc = nothing_seen(BLOCK_M, V_PAD)
    begin = split * split_keys
    best, total, acc = _attend_latents(
        best, total, acc, begin, tl.minimum(end, begin + split_keys),
        queries, tails, first_position + query, cache,
        block_table + row.to(tl.int64) * table_stride, scale,
        V, D, V_PAD, TAIL_PAD, BLOCK_SIZE, BLOCK_N, PRECISION,
    )  # fmt: skip
    if num_splits <= 1:
        _store_values(out, acc, total, lines, heads, is_line, NUM_HEADS, V, V_PAD)
        return

    # Partial sums: [tile, head tile, split, BLOCK_M].
    pair = tile * tl.num_programs(1) + head_tile
    first = pair * splits * BLOCK_M + line
    store_part(parts, part_stats, first + split * BLOCK_M, best, total, acc, is_line, V_PAD)
    if others_follow(counters, pair, num_splits):
        return
    best, total, acc = join_all(
        counters, pair, parts, part_stats, first, num_splits, is_line, BLOCK_M, V_PAD
    )
    _store_values(out, acc, total, lines, heads, is_line, NUM_HEADS, V, V_PAD)


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentShape:
    """The constants of a layer that are compiled into the kernel."""

    num_heads: int
    head_dim: int
    value_dim: int
    scale: float

    @property
    def padded_values(self) -> int:
        return max(_LEAST_COLUMNS, triton.next_power_of_2(self.value_dim))

    @property
    def padded_tail(self) -> int:
        return max(_LEAST_COLUMNS, triton.next_power_of_2(self.head_dim - self.value_dim))


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentTile:
    """How the work is cut into programs."""

    group: int  # heads of a tile
    block_q: int  # queries of a tile
    block_m: int  # its lines: queries times heads, padded
    block_n: int  # keys that are read at once
    num_warps: int
    num_stages: int = 2
    least: int = 4  # times block_n: the fewest keys of a split


@lru_cache
def latent_tile(shape: LatentShape, dtype: torch.dtype, *, is_decode: bool) -> LatentTile:
    """The tile that was fastest on an H200, or a smaller one that fits."""
    tiles = _tiles(shape, dtype, is_decode)
    return first_fitting(tiles, lambda tile: _shared_bytes(tile, shape, dtype))


def _tiles(shape: LatentShape, dtype: torch.dtype, is_decode: bool) -> Iterator[LatentTile]:
    """The tiles to choose from, the fastest first."""
    for lines in _LINES:
        group = min(lines, shape.num_heads)
        block_q = 1 if is_decode else max(1, lines // triton.next_power_of_2(group))
        block_m = max(_LEAST_LINES, triton.next_power_of_2(group * block_q))
        if dtype != torch.float32 and block_m == _LEAST_LINES:
            yield LatentTile(
                group=group, block_q=block_q, block_m=block_m, block_n=64, num_warps=8,
                num_stages=STAGES,
            )  # fmt: skip
        num_warps = 8 if block_m == _MOST_LINES else 4
        for block_n in _KEYS[1:] if dtype == torch.float32 else _KEYS:
            yield LatentTile(
                group=group, block_q=block_q, block_m=block_m, block_n=block_n, num_warps=num_warps
            )


def _shared_bytes(tile: LatentTile, shape: LatentShape, dtype: torch.dtype) -> int:
    """Bytes of shared memory that the kernel takes, about: queries, keys being loaded, weights."""
    width = shape.padded_values + shape.padded_tail
    num_keys = tile.block_n * max(1, (tile.num_stages - 1) // 2)
    values = (tile.block_m + num_keys) * width + tile.block_m * tile.block_n
    return dtype.itemsize * values


def latent_attention(
    out: Tensor,
    q: Tensor,
    kv_cache: Tensor,
    block_table: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    shape: LatentShape,
    *,
    is_decode: bool,
    is_mixed: bool = False,
    workspace: Workspace,
    tile: LatentTile | None = None,
) -> None:
    """`reference.attention.paged_attention` with a ``value_dim``, into ``out`` [T, H, value_dim].

    ``kv_cache`` is [1, num_blocks, block_size, 1, D]. ``is_decode`` and ``is_mixed`` are as of
    `attention.paged_attention`.
    """
    assert kv_cache.is_contiguous() and q.is_contiguous() and out.is_contiguous()
    tile = tile or latent_tile(shape, q.dtype, is_decode=is_decode)
    num_rows = len(seq_lens)
    num_tiles = num_rows if is_decode else most_tiles(len(q), num_rows, tile.block_q)
    num_head_tiles = triton.cdiv(shape.num_heads, tile.group)
    splits = workspace.splits(num_tiles * num_head_tiles)
    launcher_of(_latent_kernel, (num_tiles, num_head_tiles, splits))(
        out, q, kv_cache, block_table, query_start, seq_lens,
        workspace.parts, workspace.stats, workspace.counters,
        num_rows, block_table.stride(0), splits, shape.scale,
        NUM_HEADS=shape.num_heads, GROUP=tile.group, V=shape.value_dim, D=shape.head_dim,
        V_PAD=shape.padded_values, TAIL_PAD=shape.padded_tail, BLOCK_SIZE=kv_cache.shape[2],
        BLOCK_Q=tile.block_q, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, LEAST=tile.least,
        IS_DECODE=is_decode, IS_MIXED=is_mixed, PRECISION=precision(q.dtype),
        num_warps=tile.num_warps, num_stages=tile.num_stages, **dependent_launch(),
    )  # fmt: skip
