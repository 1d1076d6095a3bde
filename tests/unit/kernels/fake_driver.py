"""A CUDA driver that stands for a GPU's: asked to launch a product, it multiplies on the CPU.

It takes what it needs from where the real one would: the maps of x and of the weight, the addresses
and numbers among the parameters, and what the kernel was compiled for.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cuda.bindings import driver
from torch import Tensor

from quire.kernels.cuda import launch, product
from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.triton.activation import NAMES

MULTIPROCESSORS = 132
_KINDS = driver.CUtensorMapDataType
_DTYPES = {
    _KINDS.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: torch.bfloat16,
    _KINDS.CU_TENSOR_MAP_DATA_TYPE_FLOAT16: torch.float16,
}
_PARAMETERS = 9  # of the kernel


class FakeDriver:
    """Names that are not here are those of cuda-bindings that need no GPU."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, int]] = []  # blocks, and of a cluster
        self.boxes: list[tuple[int, int]] = []  # lines that each of x's two maps reads at once

    def __getattr__(self, name: str) -> Any:
        return getattr(driver, name)

    def cuModuleLoadData(self, code: bytes) -> tuple[int, bytes]:
        return 0, code

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[int, bytes]:
        return 0, module

    def cuFuncSetAttribute(self, *_: Any) -> tuple[int]:
        return (0,)

    def cuOccupancyMaxActiveClusters(self, function: bytes, config: Any) -> tuple[int, int]:
        return 0, MULTIPROCESSORS // config.attrs[0].value.clusterDim.x

    def cuTensorMapEncodeTiled(
        self, kind: Any, rank: int, address: int, sizes: list[Any], strides: list[Any],
        box: list[Any], *_: Any,
    ) -> tuple[int, Any]:  # fmt: skip
        columns, rows = map(int, sizes)
        words = [address, rows, columns, int(strides[0]), int(box[1]), int(kind)]
        return 0, SimpleNamespace(opaque=words + [0] * 10)

    def cuLaunchKernelEx(self, config: Any, function: bytes, places: int, extra: int) -> tuple[int]:
        self.grids.append((config.gridDimX, config.attrs[0].value.clusterDim.x))
        at = (ctypes.c_uint64 * _PARAMETERS).from_address(places)
        maps = [(ctypes.c_uint64 * 16).from_address(at[i]) for i in range(3)]
        out, before, bias = (ctypes.c_uint64.from_address(at[i]).value for i in (3, 4, 5))
        lines, columns, k = (ctypes.c_uint32.from_address(at[i]).value for i in (6, 7, 8))
        dtype = _DTYPES[_KINDS(maps[0][5])]
        self.boxes.append((maps[0][4], maps[1][4]))
        x, last_x, weight = (_tensor_at(one[0], one[1], one[2], one[3], dtype) for one in maps)
        assert x.shape == last_x.shape == (lines, k)
        sums = F.linear(x.double(), weight.double())
        if bias:
            sums += _tensor_at(bias, 1, len(weight), 0, dtype)
        defines = dict(define.split("=") for define in json.loads(function))
        if defines["GATED"] == "1":
            sums = gated_activation(sums, ACTIVATIONS[NAMES[int(defines["ACTIVATION"])]])
        if before:
            sums += _tensor_at(before, lines, columns, 2 * columns, dtype)
        _tensor_at(out, lines, columns, 2 * columns, dtype).copy_(sums)
        return (0,)


@contextmanager
def fake_driver(patch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """In place of the real one, with nothing kept of what that one said."""
    fake = FakeDriver()
    patch.setattr(launch, "driver", fake)
    patch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    patch.setattr(product, "compiled", lambda source, defines: json.dumps(defines).encode())
    caches = (
        *(launch.most_clusters, launch._encoded),
        *(product._tiles_of, product._kernel_of, product._code_of),
    )
    for cached in caches:
        cached.cache_clear()
    yield fake
    for cached in caches:
        cached.cache_clear()


def _tensor_at(address: int, rows: int, columns: int, row_bytes: int, dtype: torch.dtype) -> Tensor:
    """Of values of 16 bits, at that place in memory."""
    count = (rows - 1) * row_bytes // 2 + columns
    memory = (ctypes.c_char * (2 * count)).from_address(address)
    return torch.frombuffer(memory, dtype=dtype).as_strided((rows, columns), (row_bytes // 2, 1))
