"""What a product asks the driver for, of a driver that stands for a GPU's: it multiplies itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cuda import compiler, launch, product
from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.triton.activation import NAMES

DTYPE = torch.bfloat16
MULTIPROCESSORS = 132


class Driver:
    """Names that are not here are those of cuda-bindings, which need no GPU."""

    def __init__(self, activation: str | None = None) -> None:
        self.activation = activation
        self.grids: list[tuple[int, int]] = []  # blocks, and of a cluster
        self.boxes: list[tuple[int, int]] = []  # rows that each of x's maps reads at once

    def __getattr__(self, name: str) -> Any:
        return getattr(launch_driver, name)

    def cuModuleLoadData(self, code: bytes) -> tuple[int, bytes]:
        return 0, code

    def cuModuleGetFunction(self, module: bytes, name: bytes) -> tuple[int, bytes]:
        return 0, name

    def cuFuncSetAttribute(self, *_: Any) -> tuple[int]:
        return (0,)

    def cuOccupancyMaxActiveClusters(self, function: bytes, config: Any) -> tuple[int, int]:
        return 0, MULTIPROCESSORS // config.attrs[0].value.clusterDim.x

    def cuTensorMapEncodeTiled(
        self, kind: Any, rank: int, address: int, sizes: list[Any], strides: list[Any],
        box: list[Any], *_: Any,
    ) -> tuple[int, Any]:  # fmt: skip
        columns, rows = map(int, sizes)
        words = [address, rows, columns, int(strides[0]), int(box[1])]
        return 0, SimpleNamespace(opaque=words + [0] * 11)

    def cuLaunchKernelEx(self, config: Any, function: bytes, places: int, extra: int) -> tuple[int]:
        self.grids.append((config.gridDimX, config.attrs[0].value.clusterDim.x))
        at = (ctypes.c_uint64 * 9).from_address(places)
        maps = [(ctypes.c_uint64 * 16).from_address(at[i]) for i in range(3)]
        out, before, bias = ((ctypes.c_uint64).from_address(at[i]).value for i in (3, 4, 5))
        lines, columns, k = ((ctypes.c_uint32).from_address(at[i]).value for i in (6, 7, 8))
        self.boxes.append((maps[0][4], maps[1][4]))
        x, last_x, weight = (_tensor_at(m[0], m[1], m[2], m[3]) for m in maps)
        assert x.shape == last_x.shape == (lines, k)
        sums = F.linear(x.float(), weight.float())
        if bias:
            sums += _tensor_at(bias, 1, len(weight), 0).float()
        if self.activation is not None:
            sums = gated_activation(sums, ACTIVATIONS[self.activation])
        if before:
            sums += _tensor_at(before, lines, columns, 2 * columns).float()
        _tensor_at(out, lines, columns, 2 * columns).copy_(sums)
        return (0,)


launch_driver = launch.driver


def _tensor_at(address: int, rows: int, columns: int, row_bytes: int) -> Tensor:
    count = (rows - 1) * row_bytes // 2 + columns
    memory = (ctypes.c_char * (2 * count)).from_address(address)
    return torch.frombuffer(memory, dtype=DTYPE).as_strided((rows, columns), (row_bytes // 2, 1))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    fake = Driver()
    monkeypatch.setattr(launch, "driver", fake)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=0))
    monkeypatch.setattr(product, "compiled", lambda *_: b"code")
    caches = (launch.most_clusters, product._tiles_of, product._kernel_of, product._code_of)
    for cached in caches:
        cached.cache_clear()
    yield fake
    for cached in caches:
        cached.cache_clear()


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).to(DTYPE)


@pytest.mark.parametrize("lines", [2, 64, 100, 130, 256])
@pytest.mark.parametrize("bias", [False, True])
def test_products_and_sums(driver: Driver, lines: int, bias: bool) -> None:
    weight, shift = random(256, 512), random(256) if bias else None
    x, h = random(lines, 512), random(lines, 256)
    made = product.HopperProduct(weight, shift)
    assert made.suits(lines)
    wanted = F.linear(x.float(), weight.float(), None if shift is None else shift.float())
    torch.testing.assert_close(made(x), wanted.to(DTYPE))
    wanted += h.float()
    made.add_to(x, h)
    torch.testing.assert_close(h, wanted.to(DTYPE))
    for blocks, cluster in driver.grids:
        assert blocks % cluster == 0
        assert blocks <= MULTIPROCESSORS


@pytest.mark.parametrize("lines", [3, 200, 512])
def test_gates(driver: Driver, lines: int) -> None:
    driver.activation = "gelu"
    weight, x = random(128, 512), random(lines, 512)
    made = product.HopperProduct(weight, None, NAMES.index("gelu"))
    assert made.suits(lines)
    wanted = gated_activation(F.linear(x.float(), weight.float()), ACTIVATIONS["gelu"])
    torch.testing.assert_close(made(x), wanted.to(DTYPE))


@pytest.mark.parametrize(("lines", "boxes"), [(64, (64, 64)), (20, (64, 20)), (200, (128, 72))])
def test_no_more_lines_are_read_than_there_are(
    driver: Driver, lines: int, boxes: tuple[int, int]
) -> None:
    product.HopperProduct(random(256, 512), None)(random(lines, 512))
    assert driver.boxes == [boxes]


def test_lines_at_odd_places_are_read_from_a_copy(driver: Driver) -> None:
    weight, wide = random(64, 128), random(9, 300)
    made = product.HopperProduct(weight, None)
    for x in (wide[:, 3:131], wide[:, 8:136], wide.T[:128].T):
        torch.testing.assert_close(made(x), F.linear(x.float(), weight.float()).to(DTYPE))


def test_what_cannot_be_compiled_is_left_to_cublas_with_a_warning(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> bytes:
        raise RuntimeError("libnvrtc is not found")

    monkeypatch.setattr(product, "compiled", fail)
    made = product.HopperProduct(random(64, 128), None)
    assert not made.suits(5)
    assert not made.suits(5)
    assert [record.getMessage() for record in caplog.records] == [
        "a matrix product is left to cuBLAS, which is slower here: libnvrtc is not found"
    ]


def test_a_driver_that_refuses_says_so(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = launch_driver.CUresult.CUDA_ERROR_INVALID_VALUE
    made = product.HopperProduct(random(64, 128), None)
    monkeypatch.setattr(driver, "cuLaunchKernelEx", lambda *_: (refused,), raising=False)
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        made(random(5, 128))


def test_code_is_kept_readable_for_others(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(compiler, "_compile", lambda *_: b"code")
    compiler.compiled("source")
    (kept,) = tmp_path.iterdir()
    (tmp_path / "plain").write_bytes(b"")
    assert kept.stat().st_mode == (tmp_path / "plain").stat().st_mode
