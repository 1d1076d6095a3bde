"""How much memory the KV cache gets if that can be decided before the model is loaded.

Owns the default on a CPU and the limits of what a user may ask for. Knows sizes, not devices'
programs; imports no torch.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from quire import env
from quire.config import CacheConfig, EngineConfig
from quire.errors import OutOfMemoryError
from quire.kv_fit import KVFit, fit_max_model_len
from quire.kv_layout import KVLayout
from quire.sizes import format_bytes, rounded_down

logger = logging.getLogger(__name__)

# On a CPU other programs share the memory. The cache takes a share of what the weights leave, at
# most what a CPU can fill with tokens in reasonable time, unless one request needs more.
CPU_SHARE = 0.25
CPU_BYTES = 4 * 2**30
CPU_SHARE_FOR_ONE_REQUEST = 0.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """What a device has, in bytes."""

    device: str  # "cpu" or "cuda"
    total: int  # what the weights and a told size must fit in
    free: int  # what the weights and a size chosen here must fit in; on a CPU, what is free now
    weights: int  # what the model will take of it


@dataclass(frozen=True, kw_only=True, slots=True)
class ToldSize:
    """The size of a KV cache as a user gave it."""

    said: str  # "kv_cache_memory_bytes=1000"
    num_bytes: int
    in_blocks: bool = False


def with_kv_memory(config: EngineConfig, layout: KVLayout, memory: Memory) -> EngineConfig:
    """Set the size of the KV cache if it is known before loading, and check that it is enough."""
    fit = KVFit.of(config, layout)
    told = told_size(config.cache, fit, memory.device)
    limits = (config.model.max_model_len, config.scheduler.max_num_seqs)
    num_bytes = chosen_bytes(told, fit, memory, *limits)
    if told is None and memory.device == "cuda":
        return config  # its memory is measured once the weights are in
    if config.cache.num_blocks is None:
        config = replace(config, cache=replace(config.cache, memory_bytes=num_bytes))
    return fit_max_model_len(config, layout, fit.num_blocks_in(num_bytes))


def told_size(cache: CacheConfig, fit: KVFit, device: str) -> ToldSize | None:
    """The size given by the arguments, or on a CPU by the environment; None if neither does."""
    if cache.num_blocks is not None:
        num_bytes = cache.num_blocks * fit.bytes_per_block
        said = f"num_gpu_blocks_override={cache.num_blocks}"
        return ToldSize(said=said, num_bytes=num_bytes, in_blocks=True)
    if cache.memory_bytes is not None:
        said = f"kv_cache_memory_bytes={cache.memory_bytes}"
        return ToldSize(said=said, num_bytes=cache.memory_bytes)
    variable = env.CPU_KVCACHE_SPACE
    num_bytes_of_variable = variable.get() if device == "cpu" else None
    if num_bytes_of_variable is None:
        return None
    return ToldSize(said=f"the variable {variable.source()}", num_bytes=num_bytes_of_variable)


def weights_fit(told: ToldSize | None, memory: Memory) -> bool:
    """Whether the weights leave any memory for a KV cache."""
    return memory.weights < (memory.free if told is None else memory.total)


def chosen_bytes(
    told: ToldSize | None, fit: KVFit, memory: Memory, max_model_len: int, max_num_seqs: int
) -> int:
    """The size of the KV cache: as told, else a share of a CPU's memory or all that a GPU has left.
    No more than can be used, unless it is told in blocks. `OutOfMemoryError` if it does not fit."""
    if not weights_fit(told, memory):
        raise OutOfMemoryError(_why_weights_do_not_fit(told, memory))
    usable = fit.bytes_for(max_model_len, max_num_seqs)
    if told is not None:
        _check_told_size(told, memory)
        if told.in_blocks:
            return told.num_bytes
        if told.num_bytes > usable:
            logger.warning(
                "%s is more than %d completions of %d tokens can fill; using %s",
                told.said,
                max_num_seqs,
                max_model_len,
                format_bytes(usable),
            )
        return min(told.num_bytes, usable)
    left = memory.free - memory.weights
    is_cpu = memory.device == "cpu"
    return min(_default_cpu_bytes(fit, max_model_len, left) if is_cpu else left, usable)


def _check_told_size(told: ToldSize, memory: Memory) -> None:
    """An `OutOfMemoryError` for a cache that the device could not hold beside the weights."""
    most = memory.total - memory.weights
    if told.num_bytes <= most:
        return
    raise OutOfMemoryError(
        f"{told.said} asks for a KV cache of {format_bytes(told.num_bytes)}, but of the "
        f"{format_bytes(memory.total)} of memory here the weights leave "
        f"{format_bytes(most)}; give at most {rounded_down(most)}, or leave it out for a size that "
        "fits"
    )


def _why_weights_do_not_fit(told: ToldSize | None, memory: Memory) -> str:
    if memory.device == "cuda":
        room, remedy = f"the GPU has {format_bytes(memory.total)}", "a larger GPU"
    elif told is None:
        room, remedy = f"{format_bytes(memory.free)} of memory are free", "free some memory"
    else:
        room, remedy = f"there are {format_bytes(memory.total)} of memory", "a larger machine"
    return (
        f"the weights take {format_bytes(memory.weights)}, and {room}; choose a smaller model or "
        f"dtype, or {remedy}"
    )


def _default_cpu_bytes(fit: KVFit, max_model_len: int, free_after_weights: int) -> int:
    """A share of what is free, more for one request of full length."""
    usual = min(int(free_after_weights * CPU_SHARE), CPU_BYTES)
    most = int(free_after_weights * CPU_SHARE_FOR_ONE_REQUEST)
    return max(usual, min(fit.bytes_for(max_model_len), most))
