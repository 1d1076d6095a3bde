import os
from pathlib import Path

import psutil
import pytest

from quire import platform


def test_the_cpu_is_described() -> None:
    info = platform.cpu_info()
    assert info.kind == "cpu"
    assert "float32" in info.fast_dtypes
    assert 2**28 < info.memory_bytes <= psutil.virtual_memory().total


def test_cores_are_within_what_the_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    assert 1 <= platform.num_cpu_cores() <= len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert platform.num_cpu_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_container_limit_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{2**28}\n")
    (tmp_path / "memory.current").write_text(f"{2**27}\n")
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    monkeypatch.setattr(platform, "CGROUP", tmp_path)
    monkeypatch.setattr(platform, "_core_of", str)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert platform.memory_limit() == 2**28
    assert platform.available_memory() == 2**27
    assert platform.num_cpu_cores() == 2


def test_no_limit_is_no_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(platform, "CGROUP", tmp_path)
    assert platform.memory_limit() == psutil.virtual_memory().total


def test_hyper_threads_of_one_core_count_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    monkeypatch.setattr(platform, "_core_of", lambda cpu: f"{cpu % 2},{cpu % 2 + 2}")
    assert platform.num_cpu_cores() == 2


def test_a_missing_gpu_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert platform.default_device() == "cpu"
    with pytest.raises(ValueError, match="sees no GPU; use device 'cpu'"):
        platform.device_info("cuda")
