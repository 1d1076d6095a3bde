"""Compiled CUDA kernels in this process, how they are launched, and how they find matrices."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from cuda.bindings import driver
from torch import Tensor

from quire.kernels import hopper

_ALONE = hopper.SHARED_BYTES - 2048  # a multiprocessor has no room for two such blocks
_PROBE = b".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry probe() { ret; }\0"
# One parameter, as it lies in memory; NumPy's arrays take a microsecond each to tell where.
Argument = ctypes.c_uint32 | ctypes.c_uint64 | ctypes.Array[ctypes.c_uint64] | ctypes.Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """A kernel with how it is launched: it may begin while the one before it ends."""

    function: Any
    threads: int
    shared_bytes: int
    cluster: int  # blocks

    def __call__(self, blocks: int, arguments: Sequence[Argument]) -> None:
        """Launch on the current stream."""
        config = self.config(blocks)
        config.hStream = driver.CUstream(torch.cuda.current_stream().cuda_stream)
        config.attrs, config.numAttrs = _attributes(self.cluster), 2
        places = (ctypes.c_uint64 * len(arguments))(*map(ctypes.addressof, arguments))
        _checked(driver.cuLaunchKernelEx(config, self.function, ctypes.addressof(places), 0))

    def config(self, blocks: int) -> Any:
        """What the driver must know of a launch of so many, but for stream and attributes."""
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = self.threads, 1, 1
        config.sharedMemBytes = self.shared_bytes
        return config


def load(code: bytes, name: str, *, threads: int, shared_bytes: int, cluster: int = 1) -> Kernel:
    """The kernel of this name in machine code or PTX, on the current device."""
    module = _checked(driver.cuModuleLoadData(code))
    function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    known = driver.CUfunction_attribute
    most = known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, most, shared_bytes))
    _share_memory(function, 100)  # so that as many blocks fit as can
    return Kernel(function=function, threads=threads, shared_bytes=shared_bytes, cluster=cluster)


@lru_cache
def prefer_cache(function: int) -> None:
    """From its next launch on, a kernel finds as much cache as a multiprocessor can have."""
    _share_memory(driver.CUfunction(function), 0)


def _share_memory(function: Any, percent: int) -> None:
    """How much of a multiprocessor's memory is shared memory, if possible, and not its cache.

    Where another kernel left it otherwise, blocks wait until the multiprocessor is empty; kernels
    that ask for nothing leave it as it is.
    """
    share = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
    _checked(driver.cuFuncSetAttribute(function, share, percent))


@lru_cache
def _attributes(cluster: int) -> list[Any]:
    size = driver.CUlaunchAttribute()
    size.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION
    size.value.clusterDim.x, size.value.clusterDim.y, size.value.clusterDim.z = cluster, 1, 1
    overlap = driver.CUlaunchAttribute()
    overlap.id = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    overlap.value.programmaticStreamSerializationAllowed = 1
    return [size, overlap]


@lru_cache
def most_clusters(cluster: int) -> int:
    """How many clusters of so many blocks run at once, a multiprocessor to each block.

    Fewer than multiprocessors / blocks: those of a cluster are neighbours on the chip.
    """
    kernel = load(_PROBE, "probe", threads=128, shared_bytes=_ALONE, cluster=cluster)
    config = kernel.config(cluster)
    config.attrs, config.numAttrs = _attributes(cluster)[:1], 1
    return int(_checked(driver.cuOccupancyMaxActiveClusters(kernel.function, config)))


def tensor_map(matrix: Tensor, box_rows: int, box_columns: int) -> Argument:
    """How the copy engine finds boxes of a matrix of 16-bit values whose rows are contiguous.

    A row of a box is 128 bytes, and rows are swizzled; outside the matrix all is zero.
    """
    assert matrix.stride(1) == 1 and box_columns * matrix.element_size() == 128
    row_bytes = matrix.stride(0) * matrix.element_size()
    return _encoded(
        matrix.data_ptr(), *matrix.shape, row_bytes, matrix.dtype, box_rows, box_columns
    )


@lru_cache(maxsize=4096)  # the same places are used again and again
def _encoded(
    address: int,
    rows: int,
    columns: int,
    row_bytes: int,
    dtype: torch.dtype,
    box_rows: int,
    box_columns: int,
) -> Argument:
    kinds = driver.CUtensorMapDataType
    made = _checked(
        driver.cuTensorMapEncodeTiled(
            kinds.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
            if dtype == torch.bfloat16
            else kinds.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            2,
            address,
            [driver.cuuint64_t(columns), driver.cuuint64_t(rows)],
            [driver.cuuint64_t(row_bytes)],
            [driver.cuuint32_t(box_columns), driver.cuuint32_t(box_rows)],
            [driver.cuuint32_t(1), driver.cuuint32_t(1)],
            driver.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
            driver.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
            driver.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            driver.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    )
    return (ctypes.c_uint64 * len(made.opaque))(*map(int, made.opaque))


def pointer(tensor: Tensor | None) -> Argument:
    """Null for None."""
    return ctypes.c_uint64(0 if tensor is None else tensor.data_ptr())


def number(value: int) -> Argument:
    return ctypes.c_uint32(value)


def _checked(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA: {status!r}")
    return values[0] if values else None
