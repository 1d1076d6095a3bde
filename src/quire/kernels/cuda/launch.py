"""Loading and launching compiled CUDA kernels, and the form in which they take arguments."""

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

_ALONE = hopper.SHARED_BYTES - 2048  # so much that a multiprocessor holds one such block only
_PROBE = b".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry probe() { ret; }\0"
# One kernel argument as it lies in memory. ctypes, not NumPy, whose arrays take a microsecond each
# to tell their address.
Argument = ctypes.c_uint32 | ctypes.c_uint64 | ctypes.Array[ctypes.c_uint64] | ctypes.Structure


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernel:
    """A loaded kernel and its launch options; it may begin while the kernel before it ends."""

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
        """The driver's launch configuration for so many blocks, without stream and attributes."""
        config = driver.CUlaunchConfig()
        config.gridDimX, config.gridDimY, config.gridDimZ = blocks, 1, 1
        config.blockDimX, config.blockDimY, config.blockDimZ = self.threads, 1, 1
        config.sharedMemBytes = self.shared_bytes
        return config


def load(code: bytes, name: str, *, threads: int, shared_bytes: int, cluster: int = 1) -> Kernel:
    """Load machine code or PTX on the current device; its kernel of this name."""
    module = _checked(driver.cuModuleLoadData(code))
    function = _checked(driver.cuModuleGetFunction(module, name.encode()))
    known = driver.CUfunction_attribute
    most = known.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    _checked(driver.cuFuncSetAttribute(function, most, shared_bytes))
    _share_memory(function, 100)  # so that as many blocks as possible fit
    return Kernel(function=function, threads=threads, shared_bytes=shared_bytes, cluster=cluster)


@lru_cache
def prefer_cache(function: int) -> None:
    """From its next launch on, leave a kernel as much L1 cache as a multiprocessor can have."""
    _share_memory(driver.CUfunction(function), 0)


def _share_memory(function: Any, percent: int) -> None:
    """Ask for so much of a multiprocessor's memory as shared memory; the rest is its L1 cache.

    Where the kernel before left another split, blocks wait until the multiprocessor is empty.
    Kernels that ask for nothing leave the split as it is.
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
    """How many clusters of ``cluster`` blocks run at once with one block per multiprocessor.

    Fewer than multiprocessors / blocks: the blocks of a cluster must be neighbours on the chip.
    """
    kernel = load(_PROBE, "probe", threads=128, shared_bytes=_ALONE, cluster=cluster)
    config = kernel.config(cluster)
    config.attrs, config.numAttrs = _attributes(cluster)[:1], 1
    return int(_checked(driver.cuOccupancyMaxActiveClusters(kernel.function, config)))


def tensor_map(matrix: Tensor, box_rows: int, box_columns: int) -> Argument:
    """The descriptor by which the copy engine (TMA) loads boxes of a matrix of 16-bit values.

    Rows of the matrix are contiguous. A row of a box is 128 bytes, and rows are swizzled; whatever
    is outside the matrix is read as zero.
    """
    assert matrix.stride(1) == 1 and box_columns * matrix.element_size() == 128
    row_bytes = matrix.stride(0) * matrix.element_size()
    return _encoded(
        matrix.data_ptr(), *matrix.shape, row_bytes, matrix.dtype, box_rows, box_columns
    )


@lru_cache(maxsize=4096)  # the same matrices come at the same addresses again and again
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
    """The address of ``tensor``, null for None."""
    return ctypes.c_uint64(0 if tensor is None else tensor.data_ptr())


def number(value: int) -> Argument:
    return ctypes.c_uint32(value)


def _checked(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA: {status!r}")
    return values[0] if values else None
