"""Routing on the device: the best experts of each token, and the pairs in the order of experts.

Shapes depend on the number of tokens alone, so a CUDA graph may replay both launches. Sorting needs
the `Routing` alone, so another way to route is just another function that returns one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.moe import Routing, SortedPairs, max_tiles
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_FEW_SCAN, _MANY_SCAN = 2048, 8192  # pairs that a program reads at once
_SCAN_PER_WARP = 512
_TILES = 32  # tiles that a program writes at once
_NO_EXPERT = tl.constexpr(1 << 30)
_LARGE = tl.constexpr(1.0e30)


@triton.jit
def _softmax_top_k_kernel(
    weights, experts, logits,
    E: tl.constexpr, TOP_K: tl.constexpr, E_PAD: tl.constexpr, K_PAD: tl.constexpr,
    RENORMALISES: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    token = tl.program_id(0).to(tl.int64)
    expert = tl.arange(0, E_PAD)
    slot = tl.arange(0, K_PAD)
    is_expert = expert < E
    x = tl.load(logits + token * E + expert, mask=is_expert, other=0.0).to(tl.float32)
    # NaN and infinity must not choose an expert twice, or one that does not exist.
    x = tl.where(x == x, tl.minimum(tl.maximum(x, -_LARGE), _LARGE), 0.0)
    x = tl.where(is_expert, x, -_LARGE)
    powers = tl.where(is_expert, tl.exp(x - tl.max(x, 0)), 0.0)
    shares = tl.where(is_expert, powers / tl.sum(powers, 0), -1.0)
    best_shares = tl.zeros([K_PAD], tl.float32)
    best_experts = tl.zeros([K_PAD], tl.int32)
    for rank in tl.static_range(TOP_K):
        share, best = tl.max(shares, 0, return_indices=True)  # of equals the first
        best_shares = tl.where(slot == rank, share, best_shares)
        best_experts = tl.where(slot == rank, best, best_experts)
        shares = tl.where(expert == best, -1.0, shares)
    if RENORMALISES:
        best_shares /= tl.sum(best_shares, 0)
    tl.store(weights + token * TOP_K + slot, best_shares, mask=slot < TOP_K)
    tl.store(experts + token * TOP_K + slot, best_experts, mask=slot < TOP_K)


def softmax_top_k(logits: Tensor, top_k: int, renormalise: bool) -> Routing:
    """`reference.moe.softmax_top_k` of logits [T, experts]."""
    assert logits.is_contiguous()
    num_tokens, num_experts = logits.shape
    weights = torch.empty(num_tokens, top_k, dtype=torch.float32, device=logits.device)
    experts = torch.empty(num_tokens, top_k, dtype=torch.int32, device=logits.device)
    grid: Any = (num_tokens,)
    launcher_of(_softmax_top_k_kernel, grid)(
        weights, experts, logits, E=num_experts, TOP_K=top_k,
        E_PAD=triton.next_power_of_2(num_experts), K_PAD=triton.next_power_of_2(top_k),
        RENORMALISES=renormalise, num_warps=1, **dependent_launch(),
    )  # fmt: skip
    return Routing(weights, experts)


@triton.jit
def _count(experts, num_pairs, expert, SCAN: tl.constexpr):
    """(number of pairs of the experts before this one, number of its own)."""
    before = tl.zeros([SCAN], tl.int32)
    own = tl.zeros([SCAN], tl.int32)
    for first in range(0, num_pairs, SCAN):
        pair = first + tl.arange(0, SCAN)
        found = tl.load(experts + pair, mask=pair < num_pairs, other=_NO_EXPERT)
        before += (found < expert).to(tl.int32)
        own += (found == expert).to(tl.int32)
    return tl.sum(before, 0), tl.sum(own, 0)


@triton.jit(do_not_specialize=["num_pairs", "num_tiles"])
def _sort_kernel(
    tokens, places, ends, tiles, experts, num_pairs, num_tiles,
    TOP_K: tl.constexpr, BLOCK_M: tl.constexpr, SCAN: tl.constexpr, TILES: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    """One program per expert, each of which reads all pairs, so that none waits for another."""
    await_inputs(DEPENDENT)
    expert = tl.program_id(0)
    start, count = _count(experts, num_pairs, expert, SCAN)
    end = start + count
    tl.store(ends + expert, end)

    first_tile = expert + start // BLOCK_M
    next_tile = expert + 1 + end // BLOCK_M  # of the next expert
    for low in range(first_tile, next_tile, TILES):
        tile = low + tl.arange(0, TILES)
        place = start + (tile - first_tile) * BLOCK_M
        is_tile = place < end
        inside = tile < next_tile
        tl.store(tiles + tile, tl.where(is_tile, expert, 0), mask=inside)
        tl.store(tiles + num_tiles + tile, tl.where(is_tile, place, 0), mask=inside)
        stop = tl.minimum(place + BLOCK_M, end)
        tl.store(tiles + 2 * num_tiles + tile, tl.where(is_tile, stop, 0), mask=inside)

    for first in range(0, num_pairs, SCAN):
        pair = first + tl.arange(0, SCAN)
        found = tl.load(experts + pair, mask=pair < num_pairs, other=_NO_EXPERT)
        is_own = found == expert
        own = is_own.to(tl.int32)
        place = start + tl.cumsum(own, 0) - 1
        tl.store(tokens + place, pair // TOP_K, mask=is_own)
        tl.store(places + pair, place, mask=is_own)
        start += tl.sum(own, 0)


def sort_by_expert(experts: Tensor, num_experts: int, block_m: int) -> SortedPairs:
    """`reference.moe.sort_by_expert` of experts [T, top_k]."""
    assert experts.is_contiguous()
    num_pairs, top_k = experts.numel(), experts.shape[1]
    num_tiles = max_tiles(num_pairs, num_experts, block_m)
    tokens, places = experts.new_empty(2, num_pairs).unbind(0)
    ends = experts.new_empty(num_experts)
    tiles = experts.new_empty(3, num_tiles)
    scan = _FEW_SCAN if num_pairs <= 2 * _FEW_SCAN else _MANY_SCAN
    grid: Any = (num_experts,)
    launcher_of(_sort_kernel, grid)(
        tokens, places, ends, tiles, experts, num_pairs, num_tiles, TOP_K=top_k, BLOCK_M=block_m,
        SCAN=scan, TILES=_TILES, num_warps=scan // _SCAN_PER_WARP, **dependent_launch(),
    )  # fmt: skip
    return SortedPairs(tokens, places, ends, tiles, block_m)
