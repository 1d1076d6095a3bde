"""Kernels that multiply in tiles (`product_tiles.cu`), with a tile for each number of lines."""

from __future__ import annotations

import logging
from collections.abc import Mapping
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
    height_of,
    source_of,
    wastes_little,
)
from quire.kernels.rehearsal import is_rehearsal

logger = logging.getLogger(__name__)


class TiledKernel:
    """One kernel with one weight [n, k]; with an activation, gate and up [2 n, k].

    It is compiled for its tiles in threads; the first use waits for them.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        tiles: Mapping[int, Tile],
        activation: int | None = None,
    ) -> None:
        """``name``: of the kernel and its file. ``tiles``: by the most lines that each is for."""
        self._name, self._weight, self._activation = name, weight, activation
        self.columns = len(weight) if activation is None else len(weight) // 2
        self._tiles = tiles
        self._maps = {
            tile: tensor_map(weight, tile.columns // 2, STEP) for tile in set(tiles.values())
        }
        for tile in self._maps:
            _code_of(name, tile, weight.dtype, activation)

    def suits(self, lines: int) -> bool:
        """Whether there is a tile for so many lines, and a kernel for it."""
        height = height_of(lines)
        if height not in self._tiles or (height in MANY_LINES and not wastes_little(lines)):
            return False
        return is_rehearsal() or self._kernel(self._tiles[height]) is not None

    def __call__(self, x: Tensor, *operands: Tensor | None) -> None:
        """Launch for x [T, k]; ``operands``: what the kernel takes behind the tensor maps. Does
        nothing in a rehearsal: the constructor has begun to compile."""
        lines, k = x.shape
        assert k == self._weight.shape[1] and x.dtype == self._weight.dtype
        if is_rehearsal():
            return
        if (
            x.stride(1) != 1
            or x.stride(0) * x.element_size() % ROW_BYTES
            or x.data_ptr() % ROW_BYTES
        ):
            x = x.clone(memory_format=torch.contiguous_format)
        tile = self._tiles[height_of(lines)]
        written = tile.columns if self._activation is None else tile.columns // 2
        num_tiles = -(-lines // tile.lines) * -(-self.columns // written)
        num_clusters = min(num_tiles, most_clusters(tile.cluster))
        assert tile.parts == 1 or num_clusters == num_tiles  # a cluster that splits K has one tile
        block_lines = GROUP_LINES * tile.groups
        arguments = [
            tensor_map(x, block_lines, STEP),
            tensor_map(x, lines % block_lines or block_lines, STEP),  # for the last block's lines
            self._maps[tile],
            *map(pointer, operands),
            *map(number, (lines, self.columns, k)),
        ]
        kernel = self._kernel(tile)
        assert kernel is not None  # `suits` was asked before
        kernel(tile.cluster * num_clusters, arguments)

    def _kernel(self, tile: Tile) -> Kernel | None:
        return _kernel_of(self._name, tile, self._weight.dtype, self._activation)


@cache
def _kernel_of(name: str, tile: Tile, dtype: torch.dtype, activation: int | None) -> Kernel | None:
    """None, and a warning, where it cannot be compiled or loaded; cuBLAS serves then."""
    try:
        return load(
            _code_of(name, tile, dtype, activation).result(),
            name,
            threads=tile.threads,
            shared_bytes=tile.shared_bytes,
            cluster=tile.cluster,
        )
    except (RuntimeError, OSError) as error:
        logger.warning("a matrix product is left to cuBLAS, which is slower here: %s", error)
        return None


@cache
def _code_of(name: str, tile: Tile, dtype: torch.dtype, activation: int | None) -> Future[bytes]:
    is_fp16 = dtype == torch.float16
    return compile_later(*source_of(f"{name}.cu", tile, is_fp16=is_fp16, activation=activation))
