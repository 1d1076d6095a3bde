"""What this machine has: devices, memory, cores, and which number formats it computes fast.

Makes no choices: `resolve.py` does. Imports torch only when asked about a GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
# Files of limit and use, and what the use calls files that were read once: they are given up for
# new memory. Of cgroup v2, and of v1.
MEMORY_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceInfo:
    """One device as `resolve` and `quire plan` see it."""

    kind: str  # "cpu" or "cuda"
    name: str
    memory_bytes: int  # total; on a CPU, what this process may use
    fast_dtypes: frozenset[str]  # formats with matrix instructions of their own
    num_devices: int = 1


def device_info(kind: str) -> DeviceInfo:
    """Facts of the CPU or of the first GPU."""
    return cuda_info() if kind == "cuda" else cpu_info()


def default_device() -> str:
    """The GPU if torch sees one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def cuda_info() -> DeviceInfo:
    """Facts of the first GPU; a ``ValueError`` if torch sees none."""
    import torch

    if not torch.cuda.is_available():
        raise ValueError(
            f"device 'cuda' was asked for, but torch {torch.__version__} sees no GPU; "
            "use device 'cpu', or install a CUDA build of torch and a driver"
        )
    properties = torch.cuda.get_device_properties(0)
    fast = {"float16", "bfloat16"} if properties.major >= 8 else {"float16"}
    return DeviceInfo(
        kind="cuda",
        name=properties.name,
        memory_bytes=properties.total_memory,
        fast_dtypes=frozenset(fast),
        num_devices=torch.cuda.device_count(),
    )


def compute_capability() -> tuple[int, int]:
    """Generation of the first GPU's instructions, such as (9, 0) for Hopper."""
    import torch

    return torch.cuda.get_device_capability(0)


def cpu_info() -> DeviceInfo:
    """Facts of the CPU, within the limits set for this process."""
    flags = cpu_flags()
    fast = {"float32"}
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        fast.add("bfloat16")
    if flags & {"avx512_fp16", "amx_fp16", "asimdhp"}:
        fast.add("float16")
    return DeviceInfo(
        kind="cpu",
        name=cpu_name(),
        memory_bytes=memory_limit(),
        fast_dtypes=frozenset(fast),
    )


def num_cpu_cores() -> int:
    """Physical cores this process may use: hyper-threads share the units that matmuls need."""
    cores = {_core_of(cpu) for cpu in os.sched_getaffinity(0)}
    return max(1, min([len(cores), *_cpu_quotas()]))


def memory_limit() -> int:
    """Bytes of memory this process may ever use: the machine's, or its container's if less."""
    return min([_meminfo("MemTotal"), *(limit for limit, _ in _memory_limits())])


def available_memory() -> int:
    """Bytes that can be taken now without swapping."""
    left = [limit - used for limit, used in _memory_limits()]
    return max(0, min([_meminfo("MemAvailable"), *left]))


@cache
def cpu_flags() -> frozenset[str]:
    """Instruction sets as the kernel spells them; empty where it does not say."""
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


@cache
def cpu_name() -> str:
    for line in _cpuinfo():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return "CPU"


def _meminfo(name: str) -> int:
    """Bytes of what the kernel calls ``name``."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise ValueError(f"/proc/meminfo has no {name}; Quire needs Linux 3.14 or newer")


def _cpuinfo() -> list[str]:
    return _text(Path("/proc/cpuinfo")).splitlines()


def _core_of(cpu: int) -> str:
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    return _text(folder / "thread_siblings_list") or str(cpu)


def _cpu_quotas() -> list[int]:
    """The CPU quotas of this process's control groups, rounded up to whole cores."""
    quotas = []
    for folder in _control_groups("cpu"):
        v1 = f"{_text(folder / 'cpu.cfs_quota_us')} {_text(folder / 'cpu.cfs_period_us')}"
        for fields in (_text(folder / "cpu.max").split(), v1.split()):
            if fields and fields[0].isdecimal():  # no quota is "max", or -1
                quotas.append(-(-int(fields[0]) // int(fields[1])))
    return quotas


def _memory_limits() -> list[tuple[int, int]]:
    """Limit and use, in bytes, of each of this process's control groups that has a limit."""
    found = []
    for folder in _control_groups("memory"):
        for limit_name, used_name, cache_name in MEMORY_FILES:
            limit, used = _text(folder / limit_name), _text(folder / used_name)
            if limit.isdecimal() and int(limit) < 2**60:  # v1 writes a huge number for "no limit"
                cached = _stat(folder / "memory.stat", cache_name)
                found.append((int(limit), int(used or 0) - cached))
    return found


def _control_groups(controller: str) -> list[Path]:
    """Folders of the groups this process is in, and of those around them up to the outermost one
    seen from here; of cgroup v2, and of ``controller`` in v1. Some may not exist: a container may
    know its group only by the name that it has outside."""
    found = [CGROUPS, CGROUPS / controller]
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = CGROUPS / controller if controllers else CGROUPS
            own = root / path.lstrip("/")
            found += [one for one in (own, *own.parents) if one.is_relative_to(root)]
    return list(dict.fromkeys(found))


def _stat(path: Path, name: str) -> int:
    lines = (line.split() for line in _text(path).splitlines())
    return next((int(value) for key, value in lines if key == name), 0)


def _text(path: Path) -> str:
    """What is in the file, without the last line end; nothing where there is no such file."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
