"""A CUDA driver that stands for a GPU's: asked to launch a kernel, it computes that on the CPU.

It takes what it needs from where the real one would: the maps of x and of the weight, the addresses
and numbers among the parameters, and what the kernel was compiled for.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cuda.bindings import driver
from torch import Tensor

from quire.kernels.cuda import compiler, decode_attention, launch, product, tiled
from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.reference.attention import paged_attention, write_kv
from quire.kernels.reference.norm import rms_norm
from quire.kernels.reference.rope import rotate_half
from quire.kernels.triton.activation import NAMES

MULTIPROCESSORS = 132
_KINDS = driver.CUtensorMapDataType
_DTYPES = {
    _KINDS.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16: torch.bfloat16,
    _KINDS.CU_TENSOR_MAP_DATA_TYPE_FLOAT16: torch.float16,
}
_PARAMETERS = 9  # of a kernel with tiles


class FakeDriver:
    """Names that are not here are those of cuda-bindings that need no GPU."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, int]] = []  # blocks, and of a cluster
        self.boxes: list[tuple[int, int]] = []  # lines that each of x's two maps reads at once
        self.compiled_for: list[dict[str, int]] = []  # what kernels that were launched
        self.parts: list[int] = []  # that a row's keys may be cut into
        self.shares: list[tuple[Any, int]] = []  # of functions, percent: memory that is not cache

    def __getattr__(self, name: str) -> Any:
        return getattr(driver, name)

    def cuModuleLoadData(self, code: bytes) -> tuple[int, bytes]:
        return 0, code

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[int, SimpleNamespace]:
        return 0, SimpleNamespace(name=name, code=module)

    def cuFuncSetAttribute(self, function: Any, attribute: Any, value: int) -> tuple[int]:
        kinds = driver.CUfunction_attribute
        if attribute == kinds.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
            self.shares.append((function, value))
        return (0,)

    def cuOccupancyMaxActiveClusters(self, function: Any, config: Any) -> tuple[int, int]:
        return 0, MULTIPROCESSORS // config.attrs[0].value.clusterDim.x

    def cuTensorMapEncodeTiled(
        self, kind: Any, rank: int, address: int, sizes: list[Any], strides: list[Any],
        box: list[Any], *_: Any,
    ) -> tuple[int, Any]:  # fmt: skip
        columns, rows = map(int, sizes)
        words = [address, rows, columns, int(strides[0]), int(box[1]), int(kind)]
        return 0, SimpleNamespace(opaque=words + [0] * 10)

    def cuLaunchKernelEx(self, config: Any, function: Any, places: int, extra: int) -> tuple[int]:
        self.grids.append((config.gridDimX, config.attrs[0].value.clusterDim.x))
        defines = dict(define.split("=") for define in json.loads(function.code))
        made_for = {name: int(value) for name, value in defines.items()}
        self.compiled_for.append(made_for)
        computes = {
            b"product": self._multiply,
            b"best_column": self._search,
            b"decode_attention": self._attend,
        }
        computes[function.name](places, made_for)
        return (0,)

    def _multiply(self, places: int, made_for: dict[str, int]) -> None:
        sums, dtype, columns, (out, before, bias) = self._sums(places)
        lines = len(sums)
        if bias:
            sums += _tensor_at(bias, (sums.shape[1],), dtype)
        if made_for["GATED"]:
            sums = gated_activation(sums, ACTIVATIONS[NAMES[made_for["ACTIVATION"]]])
        if before:
            sums += _tensor_at(before, (lines, columns), dtype)
        _tensor_at(out, (lines, columns), dtype).copy_(sums)

    def _search(self, places: int, made_for: dict[str, int]) -> None:
        sums, dtype, _, (best, keys, ended) = self._sums(places)
        lines = len(sums)
        assert not _tensor_at(keys, (lines,), torch.int64).any()
        assert not _tensor_at(ended, (1,), torch.int32).any()
        logits = sums.to(dtype).float().nan_to_num(-math.inf, math.inf, -math.inf)
        _tensor_at(best, (lines,), torch.int64).copy_(logits.argmax(dim=1))

    def _sums(self, places: int) -> tuple[Tensor, torch.dtype, int, list[int]]:
        """x times weight, their dtype, the columns of the result and three operands."""
        at = (ctypes.c_uint64 * _PARAMETERS).from_address(places)
        maps = [(ctypes.c_uint64 * 16).from_address(at[i]) for i in range(3)]
        operands = [ctypes.c_uint64.from_address(at[i]).value for i in (3, 4, 5)]
        lines, columns, k = (ctypes.c_uint32.from_address(at[i]).value for i in (6, 7, 8))
        dtype = _DTYPES[_KINDS(maps[0][5])]
        self.boxes.append((maps[0][4], maps[1][4]))
        x, last_x, weight = (_matrix_at(one[0], one[1], one[2], one[3], dtype) for one in maps)
        assert x.shape == last_x.shape == (lines, k)
        return F.linear(x.double(), weight.double()), dtype, columns, operands

    def _attend(self, places: int, made_for: dict[str, int]) -> None:
        at = decode_attention._Inputs.from_address(ctypes.c_uint64.from_address(places).value)
        self.parts.append(at.most_parts)
        head, kv_heads, block = made_for["HEAD"], made_for["KV_HEADS"], made_for["BLOCK"]
        rows, num_heads = at.rows, made_for["GROUP"] * kv_heads
        dtype = torch.float16 if made_for["IS_FP16"] else torch.bfloat16
        qkv = _tensor_at(at.qkv, (rows, num_heads + 2 * kv_heads, head), dtype)
        q, k, v = qkv.split((num_heads, kv_heads, kv_heads), dim=1)
        if made_for["HAS_NORMS"]:
            q = rms_norm(q, _tensor_at(at.q_weight, (head,), dtype), at.q_eps)
            k = rms_norm(k, _tensor_at(at.k_weight, (head,), dtype), at.k_eps)
        cos, sin = (
            _tensor_at(one, (rows, 1, head // 2), torch.float32) for one in (at.cos, at.sin)
        )
        q, k = rotate_half(q, cos, sin), rotate_half(k, cos, sin)

        slots = _tensor_at(at.slots, (rows,), torch.int64)
        seq_lens, order = (_tensor_at(one, (rows,), torch.int32) for one in (at.seq_lens, at.order))
        counts = [-(-length // block) for length in seq_lens.tolist()]
        table = torch.zeros(rows, max(counts), dtype=torch.int32)
        for row, count in enumerate(counts):  # what a row has behind them may be anything
            entries = at.block_table + 4 * row * at.table_width
            table[row, :count] = _tensor_at(entries, (count,), torch.int32)
        shape = (2, 1 + max(int(table.max()), int(slots.max()) // block), block, kv_heads, head)
        cache = _tensor_at(at.k_cache, shape, dtype, at.v_cache - at.k_cache)
        write_kv(k, v, cache, slots)
        start = torch.arange(rows + 1)
        attended = paged_attention(q.float(), cache, table, start, seq_lens, scale=at.scale)
        out = _tensor_at(at.out, (rows, num_heads, head), dtype)
        out[order.long()] = attended[order.long()].to(dtype)  # rows are found by their order


@contextmanager
def fake_driver(patch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    """In place of the real one, with nothing kept of what that one said."""
    fake = FakeDriver()
    patch.setattr(launch, "driver", fake)
    patch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    facts = SimpleNamespace(multi_processor_count=MULTIPROCESSORS)
    patch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    patch.setattr(compiler, "compiled", lambda source, defines: json.dumps(defines).encode())
    caches = (
        *(launch.most_clusters, launch._encoded, launch.prefer_cache),
        *(product._tiles_of, tiled._kernel_of, tiled._code_of),
        *(decode_attention._kernel_of, decode_attention._code_of),
    )
    for cached in caches:
        cached.cache_clear()
    yield fake
    for cached in caches:
        cached.cache_clear()


def _matrix_at(address: int, rows: int, columns: int, row_bytes: int, dtype: torch.dtype) -> Tensor:
    """Rows may have gaps between them."""
    return _tensor_at(address, (rows, columns), dtype, row_bytes)


def _tensor_at(
    address: int, shape: tuple[int, ...], dtype: torch.dtype, stride: int | None = None
) -> Tensor:
    """At that place in memory; ``stride``: bytes from one of the first dimension to the next."""
    inner, size = math.prod(shape[1:]), dtype.itemsize
    step = inner if stride is None else stride // size
    memory = (ctypes.c_char * (((shape[0] - 1) * step + inner) * size)).from_address(address)
    values = torch.frombuffer(memory, dtype=dtype)
    return values.as_strided(shape, (step, *torch.empty(shape[1:], device="meta").stride()))
