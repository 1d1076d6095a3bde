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


class CGroups:
    """Control groups of this process, as folders with files."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.belong("0::/")

    def belong(self, *lines: str) -> None:
        (self._root / "own").write_text("".join(f"{line}\n" for line in lines))

    def write(self, folder: str, **files: object) -> None:
        """Files by their names, with _ for the first dot."""
        path = self._root / folder
        path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (path / name.replace("_", ".", 1)).write_text(f"{text}\n")


@pytest.fixture
def cgroups(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CGroups:
    monkeypatch.setattr(platform, "CGROUPS", tmp_path)
    monkeypatch.setattr(platform, "OWN_CGROUPS", tmp_path / "own")
    monkeypatch.setattr(platform, "_core_of", str)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3})
    return CGroups(tmp_path)


def test_a_container_limit_counts(cgroups: CGroups) -> None:
    cgroups.write("", memory_max=2**28, memory_current=2**27, cpu_max="150000 100000")
    assert platform.memory_limit() == 2**28
    assert platform.available_memory() == 2**27
    assert platform.num_cpu_cores() == 2


def test_a_limit_counts_where_the_own_group_is_not_known(cgroups: CGroups) -> None:
    cgroups.belong()
    cgroups.write("", memory_max=2**30)
    assert platform.memory_limit() == 2**30


def test_no_limit_is_no_limit(cgroups: CGroups) -> None:
    cgroups.write("", memory_max="max", cpu_max="max 100000")
    cgroups.write("memory", memory_limit_in_bytes=9223372036854771712)
    cgroups.write("cpu", cpu_cfs_quota_us=-1, cpu_cfs_period_us=100000)
    assert platform.memory_limit() == psutil.virtual_memory().total
    assert platform.num_cpu_cores() == 4


def test_files_in_the_page_cache_of_a_container_count_as_free(cgroups: CGroups) -> None:
    stat = f"anon {2**25}\nfile {2**27}\ninactive_file {2**26}\nactive_file {2**26}"
    cgroups.write("", memory_max=2**28, memory_current=2**28 - 2**20, memory_stat=stat)
    assert platform.available_memory() == 2**26 + 2**20


def test_limits_of_cgroup_v1_count(cgroups: CGroups) -> None:
    cgroups.belong("4:memory:/docker/ab", "2:cpu,cpuacct:/docker/ab")  # as the host sees it
    stat = f"inactive_file 4096\ntotal_inactive_file {2**26}"
    usage = {"memory_usage_in_bytes": 2**27, "memory_stat": stat}
    cgroups.write("memory", memory_limit_in_bytes=2**28, **usage)
    cgroups.write("cpu", cpu_cfs_quota_us=100000, cpu_cfs_period_us=100000)
    assert platform.memory_limit() == 2**28
    assert platform.available_memory() == 2**28 - 2**27 + 2**26
    assert platform.num_cpu_cores() == 1


@pytest.mark.parametrize(
    ("line", "root", "names"),
    [
        ("0::/system.slice/quire.service", "", ("memory_max", "memory_current")),
        (
            "4:memory:/system.slice/quire.service",
            "memory/",
            ("memory_limit_in_bytes", "memory_usage_in_bytes"),
        ),
    ],
)
def test_the_least_room_of_the_own_group_and_those_around_it_counts(
    cgroups: CGroups, line: str, root: str, names: tuple[str, str]
) -> None:
    limit, usage = names
    cgroups.belong("7:pids:/elsewhere", line)
    own, around = f"{root}system.slice/quire.service", f"{root}system.slice"
    cgroups.write(f"{root}elsewhere", **{limit: 2**20, usage: 2**19})
    cgroups.write(own, **{limit: 2**28, usage: 2**20})
    cgroups.write(around, **{limit: 2**29, usage: 2**29 - 2**22})
    assert platform.memory_limit() == 2**28
    assert platform.available_memory() == 2**22


def test_the_least_quota_of_nested_groups_counts(cgroups: CGroups) -> None:
    cgroups.belong("0::/a/b")
    cgroups.write("a", cpu_max="100000 100000")
    cgroups.write("a/b", cpu_max="300000 100000")
    assert platform.num_cpu_cores() == 1


def test_a_group_above_its_limit_has_nothing_left(cgroups: CGroups) -> None:
    cgroups.write("", memory_max=2**28, memory_current=2**28 + 4096)
    assert platform.available_memory() == 0


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
