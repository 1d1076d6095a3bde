"""A layer's experts on the device, from routing to the hidden state; nothing waits for the host.

The number of tokens alone decides between products by line (`moe_lines`), by tile (`moe_tiles`) and
by torch's grouped product, and how large tiles are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from quire.kernels.reference.moe import Routing, SortedPairs
from quire.kernels.triton.launch import first_fitting
from quire.kernels.triton.moe_lines import add_down_lines, gate_up_lines
from quire.kernels.triton.moe_routing import sort_by_expert
from quire.kernels.triton.moe_tiles import Tile, add_sums, down_tiles, gate_up_tiles

_LINES_SHARE = 4  # with one pair per so many experts, pairs hardly share one, and go line by line
_NARROWEST, _WIDEST = 16, 128  # pairs in a tile
_GROUPS_ON = (9, 0)  # on other GPUs torch may ask the host for the groups' sizes
_GROUPS_ALIGN = 8  # a line must have a multiple of so many values

# By the number of pairs in a tile. Narrow tiles wait for weights, so several programs share a
# multiprocessor, each with some steps of the weight being loaded. The widest keeps the matrix unit
# busy.
_GATE_UP = {
    16: Tile(block_m=16, block_n=64, block_k=128, num_warps=4, num_stages=3),
    32: Tile(block_m=32, block_n=64, block_k=64, num_warps=4, num_stages=3),
    64: Tile(block_m=64, block_n=64, block_k=64, num_warps=4, num_stages=4),
    128: Tile(block_m=128, block_n=128, block_k=64, num_warps=8, num_stages=4),
}
_DOWN = {
    16: Tile(block_m=16, block_n=128, block_k=64, num_warps=4, num_stages=4),
    32: Tile(block_m=32, block_n=128, block_k=64, num_warps=4, num_stages=4),
    64: Tile(block_m=64, block_n=128, block_k=64, num_warps=4, num_stages=4),
    128: Tile(block_m=128, block_n=128, block_k=64, num_warps=8, num_stages=4),
}


class TritonExperts:
    """Gated MLPs of one shape; ``gate_up`` [experts, 2 I, H] and ``down`` [experts, H, I]."""

    def __init__(
        self,
        gate_up: Tensor,
        down: Tensor,
        gating: str,
        *,
        gate_up_bias: Tensor | None = None,  # [experts, 2 I]
        down_bias: Tensor | None = None,  # [experts, H]
    ) -> None:
        self._gate_up = gate_up
        self._down = down
        self._gating = gating
        self._gate_up_bias = gate_up_bias
        self._down_bias = down_bias
        self._has_groups = down_bias is None and has_groups(down)

    def add_to(self, x: Tensor, routing: Routing, h: Tensor) -> None:
        """h [T, H] += the weighted sum of what each token's experts make of x [T, H]."""
        num_experts, num_pairs = len(self._down), routing.experts.numel()
        if len(x) == 1 or num_pairs * _LINES_SHARE <= num_experts:
            inner = gate_up_lines(
                x, routing.experts, self._gate_up, self._gating, self._gate_up_bias
            )
            add_down_lines(h, inner, routing, self._down, self._down_bias)
            return
        width = tile_width(num_pairs, num_experts)
        pairs = sort_by_expert(routing.experts, num_experts, width)
        tiles = best_tiles(width, x.dtype)
        inner = gate_up_tiles(x, pairs, self._gate_up, self._gating, tiles[0], self._gate_up_bias)
        if width == _WIDEST and self._has_groups:
            results = down_groups(inner, pairs, self._down)
        else:
            results = down_tiles(inner, pairs, self._down, tiles[1], self._down_bias)
        add_sums(h, results, pairs, routing.weights)


def has_groups(weight: Tensor) -> bool:
    """Whether `down_groups` works for this weight without ever waiting for the host."""
    if weight.device.type != "cuda" or weight.dtype != torch.bfloat16:
        return False
    is_aligned = all(size % _GROUPS_ALIGN == 0 for size in weight.shape[1:])
    return is_aligned and torch.cuda.get_device_capability(weight.device) == _GROUPS_ON


def down_groups(inner: Tensor, pairs: SortedPairs, weight: Tensor) -> Tensor:
    """`moe_tiles.down_tiles` by torch's grouped product, faster where computing is the limit."""
    return F.grouped_mm(inner, weight.transpose(1, 2), offs=pairs.ends)


def tile_width(num_pairs: int, num_experts: int) -> int:
    """Pairs in a tile: about twice an expert's mean, since routing is uneven and each further tile
    reads the weight again."""
    mean = triton.cdiv(num_pairs, num_experts)
    return min(_WIDEST, max(_NARROWEST, triton.next_power_of_2(2 * mean)))


@lru_cache
def best_tiles(width: int, dtype: torch.dtype) -> tuple[Tile, Tile]:
    """The tiles of gate and up, and of down: the fastest on an H200, or with fewer stages."""
    if dtype == torch.float32:  # twice the memory per value, and no matrix unit
        tile = Tile(block_m=width, block_n=32, block_k=32, num_warps=4, num_stages=2)
        return tile, tile
    return _fitting(_GATE_UP[width], 2), _fitting(_DOWN[width], 1)


def _fitting(tile: Tile, num_weights: int) -> Tile:
    """``tile`` with as many stages as fit into shared memory, which holds all but one of them."""
    bytes_per_stage = 2 * tile.block_k * (tile.block_m + num_weights * tile.block_n)
    return first_fitting(
        [replace(tile, num_stages=count) for count in range(tile.num_stages, 1, -1)],
        lambda one: (one.num_stages - 1) * bytes_per_stage,
    )
