"""The experts of many tokens: products of tiles of pairs that share an expert.

A tile gathers its pairs' lines from x, so x is not copied into the experts' order. The weight is
the matrix unit's first operand and the tokens its second, which may be as narrow as 16: a decode
step has few tokens at an expert and mainly reads weights. The grid has as many tiles as any routing
may need; a program without a tile ends at once. Between the launches lines lie by place, in the
order of experts. A last launch sums over each token's experts in the order of their slots, so the
same inputs give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.moe import SortedPairs
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.attention import precision
from quire.kernels.triton.launch import await_inputs, dependent_launch
from quire.kernels.triton.moe_gating import GATINGS, join

_GROUP = 8  # tiles of pairs that read the weight side by side, so that they share it in the cache
_SUM_BLOCK = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """The size of what one program computes, and its launch options."""

    block_m: int  # pairs
    block_n: int  # rows of the weight: of gate, and as many of up
    block_k: int
    num_warps: int
    num_stages: int


@triton.jit
def _find_place(num_tiles, BLOCKS_N: tl.constexpr, GROUP: tl.constexpr):
    """(tile of pairs, block of the weight's rows): GROUP tiles take a block before the next one."""
    program = tl.program_id(0)
    group = program // (GROUP * BLOCKS_N)
    width = tl.minimum(num_tiles - group * GROUP, GROUP)
    rest = program % (GROUP * BLOCKS_N)
    return group * GROUP + rest % width, rest // width


@triton.jit
def _load_weight(at, start, columns, K: tl.constexpr, BLOCK_K: tl.constexpr):
    if K % BLOCK_K == 0:
        return tl.load(at + start)
    return tl.load(at + start, mask=(start + columns < K)[None, :], other=0.0)


@triton.jit
def _load_lines(at, start, columns, is_pair, K: tl.constexpr, BLOCK_K: tl.constexpr):
    if K % BLOCK_K == 0:
        return tl.load(at + start, mask=is_pair[None, :], other=0.0)
    inside = (start + columns < K)[:, None] & is_pair[None, :]
    return tl.load(at + start, mask=inside, other=0.0)


@triton.jit(do_not_specialize=["num_tiles"])
def _gate_up_tiles_kernel(
    inner, x, weight, bias, tokens, tiles, num_tiles,
    SIZE: tl.constexpr, H: tl.constexpr, KIND: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    tile, block = _find_place(num_tiles, tl.cdiv(SIZE, BLOCK_N), GROUP)
    start = tl.load(tiles + num_tiles + tile)
    stop = tl.load(tiles + 2 * num_tiles + tile)
    if start >= stop:
        return
    expert = tl.load(tiles + tile).to(tl.int64)
    place = start + tl.arange(0, BLOCK_M)
    is_pair = place < stop
    token = tl.load(tokens + place, mask=is_pair, other=0)
    row = block * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_K)
    weight_row = expert * 2 * SIZE + tl.minimum(row, SIZE - 1)
    gate_at = weight + weight_row[:, None] * H + column[None, :]
    up_at = gate_at + SIZE * H
    lines_at = x + token[None, :].to(tl.int64) * H + column[:, None]
    gate = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    up = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for k in range(0, H, BLOCK_K):
        lines = _load_lines(lines_at, k, column, is_pair, H, BLOCK_K)
        gate_tile = _load_weight(gate_at, k, column, H, BLOCK_K)
        gate = tl.dot(gate_tile, lines, gate, input_precision=PRECISION)
        up_tile = _load_weight(up_at, k, column, H, BLOCK_K)
        up = tl.dot(up_tile, lines, up, input_precision=PRECISION)
    if HAS_BIAS:
        bias_at = bias + expert * 2 * SIZE + row
        is_row = row < SIZE
        gate += tl.load(bias_at, mask=is_row, other=0.0).to(tl.float32)[:, None]
        up += tl.load(bias_at + SIZE, mask=is_row, other=0.0).to(tl.float32)[:, None]
    active = join(gate, up, KIND).to(inner.dtype.element_ty)
    inside = is_pair[None, :] & (row < SIZE)[:, None]
    tl.store(inner + place[None, :].to(tl.int64) * SIZE + row[:, None], active, mask=inside)


@triton.jit(do_not_specialize=["num_tiles"])
def _down_tiles_kernel(
    results, inner, weight, bias, tiles, num_tiles,
    SIZE: tl.constexpr, H: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    PRECISION: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    tile, block = _find_place(num_tiles, tl.cdiv(H, BLOCK_N), GROUP)
    start = tl.load(tiles + num_tiles + tile)
    stop = tl.load(tiles + 2 * num_tiles + tile)
    if start >= stop:
        return
    expert = tl.load(tiles + tile).to(tl.int64)
    place = start + tl.arange(0, BLOCK_M)
    is_pair = place < stop
    row = block * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, BLOCK_K)
    weight_at = weight + (expert * H + tl.minimum(row, H - 1))[:, None] * SIZE + column[None, :]
    lines_at = inner + place[None, :].to(tl.int64) * SIZE + column[:, None]
    sums = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for k in range(0, SIZE, BLOCK_K):
        lines = _load_lines(lines_at, k, column, is_pair, SIZE, BLOCK_K)
        weight_tile = _load_weight(weight_at, k, column, SIZE, BLOCK_K)
        sums = tl.dot(weight_tile, lines, sums, input_precision=PRECISION)
    if HAS_BIAS:
        found = tl.load(bias + expert * H + row, mask=row < H, other=0.0)
        sums += found.to(tl.float32)[:, None]
    inside = is_pair[None, :] & (row < H)[:, None]
    results_at = results + place[None, :].to(tl.int64) * H + row[:, None]
    tl.store(results_at, sums.to(results.dtype.element_ty), mask=inside)


@triton.jit
def _add_sums_kernel(
    h, results, places, shares,
    TOP_K: tl.constexpr, H: tl.constexpr, K_PAD: tl.constexpr, BLOCK: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.arange(0, K_PAD)
    inside = column < H
    is_slot = slot < TOP_K
    place = tl.load(places + token * TOP_K + slot, mask=is_slot, other=0).to(tl.int64)
    share = tl.load(shares + token * TOP_K + slot, mask=is_slot, other=0.0)
    found = tl.load(
        results + place[:, None] * H + column[None, :],
        mask=is_slot[:, None] & inside[None, :],
        other=0.0,
    )
    before = tl.load(h + token * H + column, mask=inside, other=0.0).to(tl.float32)
    total = before + tl.sum(found.to(tl.float32) * share[:, None], 0)
    tl.store(h + token * H + column, total.to(h.dtype.element_ty), mask=inside)


def gate_up_tiles(
    x: Tensor,
    pairs: SortedPairs,
    weight: Tensor,
    gating: str,
    tile: Tile,
    bias: Tensor | None = None,
) -> Tensor:
    """`reference.moe.gate_up`, with a line per place instead of per pair."""
    assert x.is_contiguous() and weight.is_contiguous() and tile.block_m == pairs.block_m
    hidden, size, num_tiles = x.shape[1], weight.shape[1] // 2, pairs.tiles.shape[1]
    inner = torch.empty(len(pairs.tokens), size, dtype=x.dtype, device=x.device)
    grid: Any = (num_tiles * triton.cdiv(size, tile.block_n),)
    launcher_of(_gate_up_tiles_kernel, grid)(
        inner, x, weight, weight if bias is None else bias, pairs.tokens, pairs.tiles, num_tiles,
        SIZE=size, H=hidden, KIND=GATINGS.index(gating), HAS_BIAS=bias is not None,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k, GROUP=_GROUP,
        PRECISION=precision(x.dtype), num_warps=tile.num_warps, num_stages=tile.num_stages,
        **dependent_launch(),
    )  # fmt: skip
    return inner


def down_tiles(
    inner: Tensor, pairs: SortedPairs, weight: Tensor, tile: Tile, bias: Tensor | None = None
) -> Tensor:
    """`reference.moe.down` in inner's dtype, with a line per place, as in ``inner``."""
    assert weight.is_contiguous() and tile.block_m == pairs.block_m
    (_, hidden, size), num_tiles = weight.shape, pairs.tiles.shape[1]
    results = torch.empty(len(inner), hidden, dtype=inner.dtype, device=inner.device)
    grid: Any = (num_tiles * triton.cdiv(hidden, tile.block_n),)
    launcher_of(_down_tiles_kernel, grid)(
        results, inner, weight, weight if bias is None else bias, pairs.tiles, num_tiles,
        SIZE=size, H=hidden, HAS_BIAS=bias is not None,
        BLOCK_M=tile.block_m, BLOCK_N=tile.block_n, BLOCK_K=tile.block_k, GROUP=_GROUP,
        PRECISION=precision(inner.dtype), num_warps=tile.num_warps, num_stages=tile.num_stages,
        **dependent_launch(),
    )  # fmt: skip
    return results


def add_sums(h: Tensor, results: Tensor, pairs: SortedPairs, shares: Tensor) -> None:
    """`reference.moe.add_sums` of results that lie by place."""
    assert h.is_contiguous() and results.is_contiguous()
    (num_tokens, hidden), top_k = h.shape, shares.shape[1]
    block = min(_SUM_BLOCK, triton.next_power_of_2(hidden))
    grid: Any = (num_tokens, triton.cdiv(hidden, block))
    launcher_of(_add_sums_kernel, grid)(
        h, results, pairs.places, shares, TOP_K=top_k, H=hidden,
        K_PAD=triton.next_power_of_2(top_k), BLOCK=block, num_warps=4, **dependent_launch(),
    )  # fmt: skip
