"""Triton's digest is computed beside the imports of a start, where there may be a GPU at all."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

from quire.kernels import preload


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that asked for the digest."""
    threads: list[str] = []
    cache = ModuleType("triton.runtime.cache")
    cache.triton_key = lambda: threads.append(threading.current_thread().name)  # type: ignore[attr-defined]
    for name in ("triton", "triton.runtime"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, cache.__name__, cache)
    return threads


def wait() -> None:
    for thread in threading.enumerate():
        if thread.name == "quire-preload":
            thread.join(timeout=60)


@pytest.mark.parametrize(
    ("device", "has_driver", "count"),
    [("auto", True, 1), ("cuda", True, 1), ("cpu", True, 0), ("auto", False, 0)],
)
def test_only_for_a_gpu(
    digested: list[str],
    device: str,
    has_driver: bool,
    count: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = tmp_path / "driver"
    if has_driver:
        driver.touch()
    monkeypatch.setattr(preload, "_DRIVERS", (tmp_path / "other", driver))
    preload.preload_kernels(device)
    wait()
    assert digested == ["quire-preload"] * count


def test_what_fails_is_left_to_those_who_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", raised.append)
    monkeypatch.setattr(preload, "_DRIVERS", (tmp_path,))
    monkeypatch.setitem(sys.modules, "triton.runtime.cache", None)  # cannot be imported
    preload.preload_kernels("auto")
    wait()
    assert raised == []
