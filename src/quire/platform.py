"""What this machine has: devices, memory, cores, and which number formats it computes fast.

Makes no choices: `resolve.py` does. Imports torch only when asked about a GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


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
    allowed = os.sched_getaffinity(0)
    cores = {_core_of(cpu) for cpu in allowed}
    return max(1, min(len(cores), _cgroup_cpus() or len(cores)))


def memory_limit() -> int:
    """Bytes of memory this process may ever use: the machine's, or its container's if less."""
    total = _meminfo("MemTotal")
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes")
    return min(total, limit) if limit else total


def available_memory() -> int:
    """Bytes that can be taken now without swapping."""
    available = _meminfo("MemAvailable")
    limit = _cgroup_number("memory.max", "memory/memory.limit_in_bytes")
    used = _cgroup_number("memory.current", "memory/memory.usage_in_bytes")
    return min(available, limit - used) if limit and used else available


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
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _core_of(cpu: int) -> str:
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings.read_text().strip() if siblings.exists() else str(cpu)


def _cgroup_cpus() -> int | None:
    """The CPU quota of a container (cgroup v2), rounded up to whole cores."""
    path = CGROUP / "cpu.max"
    fields = path.read_text().split() if path.exists() else ["max"]
    return None if fields[0] == "max" else max(1, -(-int(fields[0]) // int(fields[1])))


def _cgroup_number(v2: str, v1: str) -> int | None:
    for name in (v2, v1):
        path = CGROUP / name
        text = path.read_text().strip() if path.exists() else "max"
        if text.isdecimal() and int(text) < 2**60:  # v1 writes a huge number for "no limit"
            return int(text)
    return None
