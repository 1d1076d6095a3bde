"""plan: what a model needs in memory, from its config and the headers of its weights alone.

Reads no tensor. Knows the arithmetic of weights and KV blocks, not how they are loaded.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from quire import platform
from quire.args import EngineArgs
from quire.config import DEVICE_DEFAULTS, CacheConfig
from quire.kv_fit import ELEMENT_SIZE, NUM_NULL_BLOCKS, KVFit
from quire.model_files import find_model_files
from quire.platform import DeviceInfo
from quire.resolve import (
    cache_config,
    check_parallel,
    context_length,
    default_cpu_kv_bytes,
    device_kind,
    resolve_dtype,
    scheduler_config,
)
from quire.sizes import format_bytes, parse_bytes

# What a process takes on a GPU besides weights and KV cache: CUDA itself, graphs, and the
# activations and logits of a step. It does not grow with the GPU.
GPU_RESERVE_BYTES = 3 * 2**29
# Lengths of the concurrency table, besides the longest one.
LENGTHS = (256, 1024, 4096, 16384, 65536, 262144)


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """What a model takes on one device, and what is left for contexts."""

    model: str
    architecture: str
    dtype: str
    device: str
    num_parameters: int
    model_length: int  # the longest context that the config or the user allows
    weight_bytes: int
    memory_bytes: int  # of the device
    usable_bytes: int  # the part of it that an engine may use
    reserve_bytes: int
    kv_cache_bytes: int
    fit: KVFit

    @property
    def kv_bytes_per_token(self) -> int:
        return self.fit.layout.bytes_per_token(self.fit.element_size)

    @property
    def num_blocks(self) -> int:
        return self.fit.num_blocks_in(self.kv_cache_bytes)

    @property
    def kv_cache_tokens(self) -> int:
        return max(self.num_blocks - NUM_NULL_BLOCKS, 0) * self.fit.block_size

    @cached_property
    def longest_context(self) -> int:
        """Of one request; 0 if not even the weights fit."""
        return min(self.model_length, self.fit.longest_request(self.num_blocks))

    @property
    def concurrency(self) -> dict[int, float]:
        """Requests that fit at once, by their length."""
        lengths = [length for length in LENGTHS if length < self.longest_context]
        usable = self.num_blocks - NUM_NULL_BLOCKS
        return {
            length: usable / self.fit.num_blocks_for(length)
            for length in [*lengths, self.longest_context]
            if length
        }

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["fit"]
        derived = ("kv_bytes_per_token", "num_blocks", "kv_cache_tokens", "longest_context")
        values |= {name: getattr(self, name) for name in derived}
        concurrency = {str(length): round(n, 2) for length, n in self.concurrency.items()}
        return {**values, "block_size": self.fit.block_size, "concurrency": concurrency}


def make_plan(args: EngineArgs, memory: int | str | None = None) -> MemoryPlan:
    """The plan of ``args`` on a device with ``memory`` bytes; default: the one of this machine."""
    import torch

    from quire.models.loading import plan_of
    from quire.models.loading import weight_bytes as weight_bytes_of

    check_parallel(args)
    device = _device(args, memory)
    defaults = DEVICE_DEFAULTS[device.kind]
    cache = cache_config(args, defaults)
    files = find_model_files(args, with_weights=False)
    plan = plan_of(files.config, files.architecture)
    dtype = resolve_dtype(args.dtype, files.stored_dtype, device)
    length = context_length(args, files, plan.spec).longest
    limits = scheduler_config(args, length, defaults)
    weight_bytes = weight_bytes_of(plan, getattr(torch, dtype), device.kind)
    fit = KVFit(
        layout=plan.spec.kv_layout,
        block_size=cache.block_size,
        element_size=ELEMENT_SIZE[dtype],
        max_step_tokens=limits.max_num_batched_tokens,
    )
    usable, reserve = _budget(cache, device)
    wanted = _told_kv_bytes(cache, fit)
    if wanted is None and memory is None:  # as an engine that is started here would choose
        choose = default_cpu_kv_bytes if device.kind == "cpu" else KVFit.bytes_for
        wanted = choose(fit, length, limits.max_num_seqs)
    left = max(usable - reserve - weight_bytes, 0)
    return MemoryPlan(
        model=args.model,
        architecture=files.architecture,
        dtype=dtype,
        device=device.name,
        num_parameters=plan.spec.num_parameters,
        model_length=length,
        weight_bytes=weight_bytes,
        memory_bytes=device.memory_bytes,
        usable_bytes=usable,
        reserve_bytes=reserve,
        kv_cache_bytes=left if wanted is None else min(wanted, left),
        fit=fit,
    )


def format_plan(plan: MemoryPlan) -> str:
    """The plan as a table for people."""
    rows = {
        "model": f"{plan.model} ({plan.architecture})",
        "weights": f"{format_bytes(plan.weight_bytes)}: {plan.num_parameters / 1e6:,.1f} M "
        f"parameters in {plan.dtype}",
        "memory": f"{format_bytes(plan.memory_bytes)} on {plan.device}, of which "
        f"{format_bytes(plan.usable_bytes)} usable and {format_bytes(plan.reserve_bytes)} reserved",
        "KV per token": format_bytes(plan.kv_bytes_per_token),
        "KV cache": f"{format_bytes(plan.kv_cache_bytes)}: {plan.num_blocks:,} blocks of "
        f"{plan.fit.block_size}, {plan.kv_cache_tokens:,} tokens",
        "longest context": f"{plan.longest_context:,} of the model's {plan.model_length:,} tokens",
    }
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    if not plan.longest_context:
        lacking = plan.weight_bytes + plan.reserve_bytes + plan.fit.bytes_for(1)
        return "\n".join([*lines, f"does not fit: needs more than {format_bytes(lacking)}"])
    lines += ["", f"{'tokens each':>{width}}  requests at once"]
    lines += [f"{length:>{width},}  {n:,.1f}" for length, n in plan.concurrency.items()]
    return "\n".join(lines)


def _device(args: EngineArgs, memory: int | str | None) -> DeviceInfo:
    """The device to plan for; a GPU may be planned for where there is none."""
    if args.device == "cuda" and platform.default_device() == "cpu":
        if memory is None:
            raise ValueError(
                "device 'cuda': there is no GPU here whose memory could be planned; say how much "
                "yours has, such as --memory 24GiB"
            )
        fast = frozenset({"float16", "bfloat16"})
        device = DeviceInfo(kind="cuda", name="a GPU", memory_bytes=0, fast_dtypes=fast)
    else:
        device = platform.device_info(device_kind(args))
    return device if memory is None else replace(device, memory_bytes=parse_bytes(memory))


def _budget(cache: CacheConfig, device: DeviceInfo) -> tuple[int, int]:
    """Bytes an engine may use, and those of them that are neither weights nor KV."""
    if device.kind == "cpu":
        return device.memory_bytes, 0
    return int(device.memory_bytes * cache.gpu_memory_utilization), GPU_RESERVE_BYTES


def _told_kv_bytes(cache: CacheConfig, fit: KVFit) -> int | None:
    """The size of the KV cache where the user has said it."""
    if cache.num_blocks is not None:
        return cache.num_blocks * fit.bytes_per_block
    return cache.memory_bytes
