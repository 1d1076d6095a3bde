"""Products of more than a few lines with a weight on Hopper (`product.cu`).

cuBLAS waits for the kernel before it to end, and is made for larger products. These kernels read
weights before they wait, and apply a gated activation or add to the hidden state in the same
launch. Twins are `F.linear` and `reference.activation.gated_activation`. `availability` tells
whether this can be imported and used; everything is on the one device of the process.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import cache

import torch
from torch import Tensor

from quire.kernels.cuda.availability import ROW_BYTES
from quire.kernels.cuda.compiler import compile_later
from quire.kernels.cuda.launch import (
    Kernel,
    load,
    most_clusters,
    number,
    pointer,
    tensor_map,
)
from quire.kernels.cuda.product_tile import (
    GROUP_LINES,
    MANY_LINES,
    STEP,
    Tile,
    best_tiles,
    height_of,
    source_of,
    wastes_little,
)
from quire.kernels.rehearsal import is_rehearsal

logger = logging.getLogger(__name__)


class HopperProduct:
    """x Wᵀ + b; with an activation, whose halves are gate and up, activation(gate) * up.

    The kernels are compiled in threads; the first use waits for them.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, activation: int | None = None, room: int = 0
    ) -> None:
        """``room``: bytes of shared memory that a block of the kernel after the product takes."""
        n, k = weight.shape
        self._weight, self._bias, self._activation = weight, bias, activation
        self._columns = n if activation is None else n // 2  # of the result
        self._tiles = _tiles_of(n, k, gated=activation is not None, room=room)
        self._maps = {
            tile: tensor_map(weight, tile.columns // 2, STEP) for tile in set(self._tiles.values())
        }
        for tile in self._maps:
            _code_of(tile, weight.dtype, activation)

    def suits(self, lines: int) -> bool:
        """Whether this is the fastest way to multiply so many lines."""
        height = height_of(lines)
        if height not in self._tiles or (height in MANY_LINES and not wastes_little(lines)):
            return False
        return is_rehearsal() or self._kernel(self._tiles[height]) is not None

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, K] -> [T, N]; [T, N / 2] with an activation."""
        out = torch.empty(len(x), self._columns, dtype=x.dtype, device=x.device)
        self._launch(x, out, None)
        return out

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h [T, N] += what the call would return."""
        self._launch(x, h, h)

    def _kernel(self, tile: Tile) -> Kernel | None:
        return _kernel_of(tile, self._weight.dtype, self._activation)

    def _launch(self, x: Tensor, out: Tensor, before: Tensor | None) -> None:
        lines, k = x.shape
        assert k == self._weight.shape[1] and out.shape == (lines, self._columns)
        assert x.dtype == out.dtype == self._weight.dtype
        assert out.is_contiguous() and out.data_ptr() % ROW_BYTES == 0
        if is_rehearsal():
            return  # the constructor has begun to compile it in a thread
        if (
            x.stride(1) != 1
            or x.stride(0) * x.element_size() % ROW_BYTES
            or x.data_ptr() % ROW_BYTES
        ):
            x = x.clone(memory_format=torch.contiguous_format)
        tile = self._tiles[height_of(lines)]
        written = tile.columns if self._activation is None else tile.columns // 2
        num_tiles = -(-lines // tile.lines) * -(-self._columns // written)
        num_clusters = min(num_tiles, most_clusters(tile.cluster))
        assert tile.parts == 1 or num_clusters == num_tiles  # a cluster that splits K has one tile
        block_lines = GROUP_LINES * tile.groups
        arguments = [
            tensor_map(x, block_lines, STEP),
            tensor_map(x, lines % block_lines or block_lines, STEP),  # for the last block's lines
            self._maps[tile],
            *map(pointer, (out, before, self._bias)),
            *map(number, (lines, self._columns, k)),
        ]
        kernel = self._kernel(tile)
        assert kernel is not None  # `suits` was asked before
        kernel(tile.cluster * num_clusters, arguments)


@cache
def _tiles_of(n: int, k: int, *, gated: bool, room: int) -> dict[int, Tile]:
    """`best_tiles` on this device, computed once for all layers of a shape."""
    return best_tiles(n, k, gated=gated, most_clusters=most_clusters, room=room)


@cache
def _kernel_of(tile: Tile, dtype: torch.dtype, activation: int | None) -> Kernel | None:
    """None, and a warning, where it cannot be compiled or loaded; cuBLAS serves then."""
    try:
        return load(
            _code_of(tile, dtype, activation).result(),
            "product",
            threads=tile.threads,
            shared_bytes=tile.shared_bytes,
            cluster=tile.cluster,
        )
    except (RuntimeError, OSError) as error:
        logger.warning("a matrix product is left to cuBLAS, which is slower here: %s", error)
        return None


@cache
def _code_of(tile: Tile, dtype: torch.dtype, activation: int | None) -> Future[bytes]:
    return compile_later(*source_of(tile, is_fp16=dtype == torch.float16, activation=activation))
