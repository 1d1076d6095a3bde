"""Products of more than a few lines with a weight on Hopper (`product.cu`).

cuBLAS waits for the kernel before it to end, and is made for larger products. These kernels read
weights before they wait, and apply a gated activation or add to the hidden state in the same
launch. Twins are `F.linear` and `reference.activation.gated_activation`. `availability` tells
whether this can be imported and used; everything is on the one device of the process.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from quire.kernels.cuda.availability import ROW_BYTES
from quire.kernels.cuda.launch import most_clusters
from quire.kernels.cuda.product_tile import Tile, best_tiles
from quire.kernels.cuda.tiled import TiledKernel


class HopperProduct:
    """x Wᵀ + b; with an activation, whose halves are gate and up, activation(gate) * up."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: int | None = None, room: int = 0
    ) -> None:
        """``room``: bytes of shared memory that a block of the kernel after the product takes."""
        n, k = weight.shape
        tiles = _tiles_of(n, k, gated=activation is not None, room=room)
        self._bias = bias
        self._kernel = TiledKernel("product", weight, tiles, activation)

    def suits(self, lines: int) -> bool:
        """Whether this is the fastest way to multiply so many lines."""
        return self._kernel.suits(lines)

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, K] -> [T, N]; [T, N / 2] with an activation."""
        out = torch.empty(len(x), self._kernel.columns, dtype=x.dtype, device=x.device)
        self._launch(x, out, None)
        return out

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h [T, N] += what the call would return."""
        self._launch(x, h, h)

    def _launch(self, x: Tensor, out: Tensor, before: Tensor | None) -> None:
        assert out.shape == (len(x), self._kernel.columns) and out.dtype == x.dtype
        assert out.is_contiguous() and out.data_ptr() % ROW_BYTES == 0
        self._kernel(x, out, before, self._bias)


@cache
def _tiles_of(n: int, k: int, *, gated: bool, room: int) -> dict[int, Tile]:
    """`best_tiles` on this device, computed once for all layers of a shape."""
    return best_tiles(n, k, gated=gated, most_clusters=most_clusters, room=room)
