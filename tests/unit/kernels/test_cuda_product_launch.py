"""What a product asks the driver for, and what becomes of it where it gets nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda.bindings import driver as real_driver
from torch import Tensor

from quire.kernels.cuda import compiler, product
from tests.unit.kernels.fake_driver import MULTIPROCESSORS, FakeDriver, fake_driver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    with fake_driver(monkeypatch) as fake:
        yield fake


def random(*shape: int) -> Tensor:
    return torch.randn(*shape).to(torch.bfloat16)


@pytest.mark.parametrize("lines", [2, 64, 100, 130, 256])
def test_there_are_whole_clusters_and_no_more_than_run_at_once(
    driver: FakeDriver, lines: int
) -> None:
    for n, k in ((256, 512), (1024, 2048), (20_000, 64)):
        product.HopperProduct(random(n, k), None)(random(lines, k))
    assert len(driver.grids) == 3
    for blocks, cluster in driver.grids:
        assert blocks % cluster == 0
        assert blocks <= MULTIPROCESSORS


@pytest.mark.parametrize(("lines", "boxes"), [(64, (64, 64)), (20, (64, 20)), (200, (128, 72))])
def test_no_more_lines_are_read_than_there_are(
    driver: FakeDriver, lines: int, boxes: tuple[int, int]
) -> None:
    product.HopperProduct(random(256, 512), None)(random(lines, 512))
    assert driver.boxes == [boxes]


def test_what_cannot_be_compiled_is_left_to_cublas_with_a_warning(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> bytes:
        raise RuntimeError("libnvrtc is not found")

    monkeypatch.setattr(compiler, "compiled", fail)
    made = product.HopperProduct(random(64, 128), None)
    assert not made.suits(5)
    assert not made.suits(5)
    assert [record.getMessage() for record in caplog.records] == [
        "a matrix product is left to cuBLAS, which is slower here: libnvrtc is not found"
    ]


def test_a_driver_that_refuses_says_so(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = real_driver.CUresult.CUDA_ERROR_INVALID_VALUE
    made = product.HopperProduct(random(64, 128), None)
    monkeypatch.setattr(driver, "cuLaunchKernelEx", lambda *_: (refused,))
    with pytest.raises(RuntimeError, match="INVALID_VALUE"):
        made(random(5, 128))


def test_code_is_kept_readable_for_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    monkeypatch.setattr(compiler, "_compile", lambda *_: b"code")
    compiler.compiled("source")
    (kept,) = tmp_path.iterdir()
    (tmp_path / "plain").write_bytes(b"")
    assert kept.stat().st_mode == (tmp_path / "plain").stat().st_mode
