"""What attention of a decode step asks the driver for, and what becomes of it without a kernel."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from quire.kernels.cuda import compiler, decode_attention
from quire.kernels.cuda.decode_attention import FEW, MANY, DecodeAttention
from quire.kernels.rehearsal import rehearse
from quire.kernels.shapes import DecodeRows, HeadsShape
from tests.unit.kernels.fake_driver import MULTIPROCESSORS, FakeDriver, fake_driver

HEADS, KV_HEADS, DIM, BLOCK = 4, 2, 64, 16
NUM_BLOCKS = 5


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    with fake_driver(monkeypatch) as fake:
        yield fake


def made(dtype: torch.dtype = torch.bfloat16) -> DecodeAttention:
    shape = HeadsShape(
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=DIM,
        rotary_dim=DIM,
        is_interleaved=False,
        eps=(0.0, 0.0),
    )
    device = torch.device("cpu")
    return DecodeAttention(shape, None, scale=0.1, block_size=BLOCK, dtype=dtype, device=device)


def attended(attend: DecodeAttention, num_rows: int, kv_cache: torch.Tensor) -> torch.Tensor:
    """Rows of one token each, all with the same block."""
    angles = torch.zeros(2, num_rows, 1, DIM // 2)
    return attend(
        torch.ones(num_rows, (HEADS + 2 * KV_HEADS) * DIM, dtype=kv_cache.dtype),
        *angles,
        kv_cache,
        torch.full((num_rows,), BLOCK),
        DecodeRows(
            block_table=torch.ones(num_rows, 1, dtype=torch.int32),
            seq_lens=torch.ones(num_rows, dtype=torch.int32),
            order=torch.arange(num_rows).int(),
        ),
    )


def empty_cache() -> torch.Tensor:
    return torch.zeros(2, NUM_BLOCKS, BLOCK, KV_HEADS, DIM, dtype=torch.bfloat16)


@pytest.mark.parametrize("num_rows", [1, 66, 67, 500, 5000])
def test_no_more_blocks_are_launched_than_run_at_once_or_have_work(
    driver: FakeDriver, num_rows: int
) -> None:
    attended(made(), num_rows, empty_cache())
    ((blocks, cluster),), (made_for,), (parts,) = driver.grids, driver.compiled_for, driver.parts
    assert cluster == 1
    assert 1 <= blocks <= MULTIPROCESSORS * made_for["BLOCKS"]
    assert blocks <= num_rows * KV_HEADS * parts


def test_the_work_is_cut_by_how_many_rows_and_heads_there_are(driver: FakeDriver) -> None:
    attend, cache = made(), empty_cache()
    for num_rows in (MULTIPROCESSORS // KV_HEADS, MULTIPROCESSORS // KV_HEADS + 1):
        attended(attend, num_rows, cache)
    assert [one["WARPS"] for one in driver.compiled_for] == [FEW.warps, MANY.warps]


@pytest.mark.parametrize(("num_rows", "parts"), [(1, 32), (1024, 4), (3000, 1), (5000, 1)])
def test_rows_have_as_many_parts_as_there_is_room_for(
    driver: FakeDriver, num_rows: int, parts: int
) -> None:
    attended(made(), num_rows, empty_cache())
    assert driver.parts == [parts]
    assert parts == 1 or num_rows * KV_HEADS * parts <= decode_attention._ALL_PARTS


def test_layers_share_kernels_and_a_workspace_made_before_a_step(driver: FakeDriver) -> None:
    layers, cache = [made(), made()], empty_cache()
    workspace = layers[0]._workspace  # before any capture: memory of a graph is cleared in it
    for attend in layers:
        for num_rows in (1, 100):
            attended(attend, num_rows, cache)
        assert attend._workspace is workspace
    assert decode_attention._code_of.cache_info().misses == 2  # few rows and many


def test_a_workspace_is_given_back_with_the_layers(driver: FakeDriver) -> None:
    attend = made()
    assert len(decode_attention._workspaces) == 1
    del attend
    gc.collect()
    assert len(decode_attention._workspaces) == 0


def test_a_rehearsal_is_left_to_the_kernels_that_it_compiles(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    found = []
    rehearse(lambda: found.append(made().is_usable()))
    assert found == [False]
    assert decode_attention._code_of.cache_info().currsize == 2  # threads compile both
    assert decode_attention._kernel_of.cache_info().currsize == 0  # and nobody waits for them


@pytest.mark.parametrize("failing", [FEW, MANY], ids=["few", "many"])
def test_what_cannot_be_compiled_is_not_usable_and_says_so_once(
    driver: FakeDriver,
    failing: decode_attention.Cut,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    compiled = compiler.compiled

    def fail(source: str, defines: list[str]) -> bytes:
        if f"WARPS={failing.warps}" in defines:
            raise RuntimeError("libnvrtc is not found")
        return compiled(source, defines)

    monkeypatch.setattr(compiler, "compiled", fail)
    layers = [made(), made()]
    assert [layer.is_usable() for layer in (*layers, *layers)] == [False] * 4
    assert [record.getMessage() for record in caplog.records] == [
        "decode steps use slower kernels of attention: libnvrtc is not found"
    ]


def test_a_kernel_that_the_driver_does_not_load_is_not_usable(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = driver.CUresult.CUDA_ERROR_NO_BINARY_FOR_GPU
    monkeypatch.setattr(driver, "cuModuleLoadData", lambda code: (refused, None))
    assert not made().is_usable()
    assert "NO_BINARY_FOR_GPU" in caplog.text


@pytest.mark.parametrize("what", ["dtype", "block size"])
def test_a_cache_that_it_is_not_made_for_is_a_mistake(driver: FakeDriver, what: str) -> None:
    cache: Any = empty_cache().half() if what == "dtype" else empty_cache().flatten(1, 2)[:, None]
    with pytest.raises(AssertionError):
        attended(made(), 1, cache)
    assert driver.grids == []
