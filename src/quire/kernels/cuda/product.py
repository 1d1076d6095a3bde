"""Products of more than a few lines with a weight on Hopper (`product.cu`).

cuBLAS waits for the kernel before, and is made for larger products. These read weights before they
wait, and gate or add what they computed in the same launch. Twins are `F.linear` and
`reference.activation.gated_activation`.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from quire.kernels.cuda.product_tile import (
    GROUP_LINES,
    HEIGHTS,
    MANY_LINES,
    SHARED_BYTES,
    STEP,
    Tile,
    best_tile,
    source_of,
    wastes_little,
)

if TYPE_CHECKING:
    from quire.kernels.cuda.launch import Kernel

_DTYPES = (torch.bfloat16, torch.float16)
_ALIGNMENT = 8  # values: the copy engine reads rows of multiples of 16 bytes
_FEWEST_COLUMNS = 32
_ALONE = SHARED_BYTES - 2048  # of shared memory: a multiprocessor has room for one such block


@cache
def unavailable() -> str | None:
    """Why this machine has no such products, or None."""
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != (9, 0):
        return "the GPU is no Hopper"
    try:
        from cuda.bindings import nvrtc
    except ImportError:
        return "cuda-bindings is not installed"
    try:
        nvrtc.nvrtcVersion()
    except RuntimeError as error:  # its library is not found
        return f"NVRTC: {error}"
    return None


def why_not(weight: Tensor, *, gated: bool) -> str | None:
    """Why products with this weight cannot be these, or None."""
    n, k = weight.shape
    if reason := unavailable():
        return reason
    if weight.dtype not in _DTYPES:
        return f"the weight is {weight.dtype}"
    if n // (2 if gated else 1) % _ALIGNMENT or k % _ALIGNMENT or n < _FEWEST_COLUMNS:
        return f"the weight is {n} x {k}"
    if not weight.is_contiguous() or weight.data_ptr() % (_ALIGNMENT * weight.element_size()):
        return "the weight is not contiguous and aligned"
    return None


class HopperProduct:
    """x Wᵀ + b; with an activation, of its halves, activation(gate) * up.

    Its kernels are compiled in threads, and waited for when they are first launched.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: int | None = None) -> None:
        from quire.kernels.cuda.launch import tensor_map

        n, k = weight.shape
        self._weight, self._bias, self._activation = weight, bias, activation
        self._columns = n if activation is None else n // 2  # of what is written
        # More lines are only faster where a kernel behind the product is saved.
        heights = HEIGHTS if activation is None else (*HEIGHTS, MANY_LINES)
        self._tiles = {lines: best_tile(lines, n, k, _most_clusters) for lines in heights}
        self._maps = {
            tile: tensor_map(weight, tile.columns // 2, STEP) for tile in self._tiles.values()
        }
        for tile in self._maps:
            _code_of(tile, weight.dtype, activation)

    def suits(self, lines: int) -> bool:
        """Whether this is the fastest way for so many lines."""
        return lines <= HEIGHTS[-1] or (MANY_LINES in self._tiles and wastes_little(lines))

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, K] -> [T, N]; [T, N / 2] with an activation."""
        out = torch.empty(len(x), self._columns, dtype=x.dtype, device=x.device)
        self._launch(x, out, None)
        return out

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h [T, N] += what the call would return."""
        self._launch(x, h, h)

    def _launch(self, x: Tensor, out: Tensor, before: Tensor | None) -> None:
        from quire.kernels.cuda.launch import number, pointer, tensor_map

        assert x.dtype == self._weight.dtype and out.is_contiguous()
        if x.stride(1) != 1 or x.stride(0) % _ALIGNMENT or x.data_ptr() % 16:
            x = x.clone(memory_format=torch.contiguous_format)
        lines, k = x.shape
        tile = self._tiles[next((most for most in HEIGHTS if lines <= most), MANY_LINES)]
        written = tile.columns if self._activation is None else tile.columns // 2
        tiles = -(-lines // tile.lines) * -(-self._columns // written)
        height = GROUP_LINES * tile.groups  # of a block
        arguments = [
            tensor_map(x, height, STEP),
            tensor_map(x, lines % height or height, STEP),  # of the last block that has lines
            self._maps[tile],
            *map(pointer, (out, before, self._bias)),
            *map(number, (lines, self._columns, k)),
        ]
        kernel = _kernel_of(tile, self._weight.dtype, self._activation)
        kernel(tile.cluster * min(tiles, _most_clusters(tile.cluster)), arguments)


def _most_clusters(cluster: int) -> int:
    from quire.kernels.cuda.launch import most_clusters

    return most_clusters(cluster, _ALONE)


@cache
def _kernel_of(tile: Tile, dtype: torch.dtype, activation: int | None) -> Kernel:
    from quire.kernels.cuda.launch import load

    return load(
        _code_of(tile, dtype, activation).result(),
        "product",
        threads=tile.threads,
        shared_bytes=tile.shared_bytes,
        cluster=tile.cluster,
    )


@cache
def _code_of(tile: Tile, dtype: torch.dtype, activation: int | None) -> Future[bytes]:
    from quire.kernels.cuda.compiler import compiled

    return _threads().submit(
        compiled, *source_of(tile, is_fp16=dtype == torch.float16, activation=activation)
    )


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="quire-nvrtc")
