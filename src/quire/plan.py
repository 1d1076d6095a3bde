"""plan: what a model needs in memory, from its config and the headers of its weights.

Reads no tensors, but the tokenizer of a local model, and refuses what an engine would refuse.
Knows the arithmetic of weights and KV blocks, not how they are loaded.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire import platform
from quire.args import EngineArgs
from quire.config import DEVICE_DEFAULTS, CacheConfig
from quire.kv_budget import (
    CPU_SHARE_FOR_ONE_REQUEST,
    Memory,
    ToldSize,
    chosen_bytes,
    told_size,
    weights_fit,
)
from quire.kv_fit import ELEMENT_SIZE, NUM_NULL_BLOCKS, KVFit
from quire.model_files import ModelFiles, find_model_files
from quire.platform import DeviceInfo
from quire.plugins import load_plugins
from quire.resolve import (
    attention_backend,
    cache_config,
    check_alone,
    context_length,
    device_kind,
    model_source,
    scheduler_config,
)
from quire.sizes import format_bytes, parse_bytes, rounded_up
from quire.weights.checkpoint_files import choose_weight_files

if TYPE_CHECKING:
    from quire.models.source import ModelFacts, ModelSource

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
    kv_dtype: str  # of keys and values
    device: str
    num_parameters: int
    max_model_len: int  # what the user asks for, else the model's own length
    may_be_shorter: bool  # the user gave no max_model_len
    max_num_seqs: int
    weight_bytes: int
    copied_bytes: int  # of those, the tied head that matrix products need in another layout
    lacks_weights: bool  # a folder without weight files: sizes are those of its config
    memory_bytes: int  # of the device
    usable_bytes: int  # the part of it that an engine may use; all with a told cache size
    reserve_bytes: int
    needed_bytes: int  # of the device's memory (of a CPU's usable one) for one request
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
        """The most tokens of one request; 0 if not even the weights fit."""
        return min(self.max_model_len, self.fit.longest_request(self.num_blocks))

    @property
    def fits(self) -> bool:
        """Whether an engine would start."""
        return self.longest_context >= (1 if self.may_be_shorter else self.max_model_len)

    @property
    def concurrency(self) -> dict[int, float]:
        """Requests that run at once, by their length."""
        lengths = [length for length in LENGTHS if length < self.longest_context]
        usable = self.num_blocks - NUM_NULL_BLOCKS
        return {
            length: min(usable / self.fit.num_blocks_for(length), self.max_num_seqs)
            for length in [*lengths, self.longest_context]
            if length
        }

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        del values["fit"]
        derived = ("fits", "kv_bytes_per_token", "num_blocks", "kv_cache_tokens", "longest_context")
        values |= {name: getattr(self, name) for name in derived}
        concurrency = {str(length): round(n, 2) for length, n in self.concurrency.items()}
        return {**values, "block_size": self.fit.block_size, "concurrency": concurrency}


def make_plan(args: EngineArgs, memory: int | str | None = None) -> MemoryPlan:
    """The plan of ``args`` on a device with ``memory`` bytes; default: this machine's.

    With ``memory`` the device is a GPU unless ``args`` say "cpu". Refuses what an engine would
    refuse; for a local folder with weights that includes checks of the tokenizer and the weights,
    whose shapes are compared with the config unless transformers' code computes.
    """
    from quire.models.loading import facts_of

    load_plugins()
    check_alone(args)
    device = _device(args, memory)
    defaults = DEVICE_DEFAULTS[device.kind]
    cache = cache_config(args, defaults)
    files = find_model_files(args, with_weights=False)
    source = model_source(args, files, device)
    facts = facts_of(source, device.kind)
    if memory is None or device.kind == "cpu":  # the capabilities of an assumed GPU are unknown
        _check_attention(args, source, device, cache)
    has_weights = _has_weights(args, files)
    _check_folder(args, files, source, is_whole=bool(has_weights))
    length = context_length(args, files, facts)
    limits = scheduler_config(args, length.longest, defaults)
    fit = KVFit(
        layout=facts.kv_layout,
        block_size=cache.block_size,
        element_size=ELEMENT_SIZE[cache.dtype_for(source.dtype)],
        max_step_tokens=limits.max_num_batched_tokens,
    )
    shortest = length.longest if length.source == "user" else 1
    told = told_size(cache, fit, device.kind)
    usable, reserve = _budget(cache, told, device, is_invented=memory is not None)
    budget = Memory(
        device=device.kind,
        total=device.memory_bytes - reserve,
        free=usable - reserve,
        weights=facts.weight_bytes,
    )
    return MemoryPlan(
        model=args.model,
        architecture=files.architecture,
        dtype=source.dtype,
        kv_dtype=cache.dtype_for(source.dtype),
        device=device.name,
        num_parameters=facts.num_parameters,
        max_model_len=length.longest,
        may_be_shorter=length.source != "user",
        max_num_seqs=limits.max_num_seqs,
        weight_bytes=facts.weight_bytes,
        copied_bytes=_copied_bytes(source, facts),
        lacks_weights=has_weights is False and args.load_format != "dummy",
        memory_bytes=device.memory_bytes,
        usable_bytes=usable,
        reserve_bytes=reserve,
        needed_bytes=_needed(cache, told, budget, reserve, fit.bytes_for(shortest)),
        kv_cache_bytes=chosen_bytes(told, fit, budget, length.longest, limits.max_num_seqs)
        if weights_fit(told, budget)
        else 0,
        fit=fit,
    )


def format_plan(plan: MemoryPlan) -> str:
    """The plan as a table for people."""
    rows = {
        "model": f"{plan.model} ({plan.architecture})",
        "weights": _weights(plan),
        "memory": f"{format_bytes(plan.memory_bytes)} on {plan.device}, "
        f"{format_bytes(plan.usable_bytes)} usable{_reserve(plan)}",
        "KV per token": format_bytes(plan.kv_bytes_per_token),
        "KV cache": f"{format_bytes(plan.kv_cache_bytes)}: {plan.num_blocks:,} blocks of "
        f"{plan.fit.block_size}, {plan.kv_cache_tokens:,} tokens"
        f"{'' if plan.kv_dtype == plan.dtype else f', {plan.kv_dtype}'}",
        "longest context": _longest_context(plan),
    }
    width = max(map(len, rows))
    lines = [f"{name:<{width}}  {value}" for name, value in rows.items()]
    if plan.lacks_weights:
        lines.append(f"no weights in {plan.model}: sizes are those of its config")
    if not plan.fits:
        return "\n".join([*lines, _what_it_lacks(plan)])
    lines += ["", f"{'tokens each':>{width}}  requests at once"]
    lines += [f"{length:>{width},}  {n:,.1f}" for length, n in plan.concurrency.items()]
    return "\n".join(lines)


def _weights(plan: MemoryPlan) -> str:
    copied = format_bytes(plan.copied_bytes)
    again = f", and the embedding again, packed as the head ({copied})" if plan.copied_bytes else ""
    return (
        f"{format_bytes(plan.weight_bytes)}: {plan.num_parameters / 1e6:,.1f} M parameters in "
        f"{plan.dtype}{again}"
    )


def _longest_context(plan: MemoryPlan) -> str:
    length = f"{plan.max_model_len:,}"
    wanted = f"model's {length} tokens" if plan.may_be_shorter else f"{length} of max_model_len"
    return f"{plan.longest_context:,} of the {wanted}"


def _reserve(plan: MemoryPlan) -> str:
    if not plan.reserve_bytes:
        return ""
    reserve = format_bytes(plan.reserve_bytes)
    if plan.reserve_bytes > plan.usable_bytes:
        return f"; CUDA and the steps alone take {reserve}"
    return f", {reserve} of that for CUDA and the steps"


def _what_it_lacks(plan: MemoryPlan) -> str:
    length = 1 if plan.may_be_shorter else plan.max_model_len
    if plan.longest_context:
        return (
            f"does not fit: max_model_len={length} needs a KV cache of "
            f"{format_bytes(plan.fit.bytes_for(length))}; {plan.longest_context} is the longest "
            "that fits"
        )
    if plan.needed_bytes <= (plan.memory_bytes if plan.reserve_bytes else plan.usable_bytes):
        return f"does not fit: needs a KV cache of {format_bytes(plan.fit.bytes_for(length))}"
    is_part = plan.reserve_bytes and plan.usable_bytes < plan.memory_bytes
    share = ", of which gpu_memory_utilization leaves a part" if is_part else ""
    return f"does not fit: needs {rounded_up(plan.needed_bytes)} of memory{share}"


def _copied_bytes(source: ModelSource, facts: ModelFacts) -> int:
    """The part of Quire's own weights that no parameter needs; transformers' may be mixed."""
    if source.impl != "quire":
        return 0
    return facts.weight_bytes - facts.num_parameters * ELEMENT_SIZE[source.dtype]


def _check_attention(
    args: EngineArgs, source: ModelSource, device: DeviceInfo, cache: CacheConfig
) -> None:
    """Refuse a backend that could not serve even a plain layer on ``device``."""
    from quire.attention.backend import AttentionProblem
    from quire.attention.selection import select_backends
    from quire.dtypes import DTYPES, cache_dtype_of

    plain = AttentionProblem(
        num_heads=1,
        num_kv_heads=1,
        head_dim=64,
        scale=1.0,
        dtype=DTYPES[source.dtype],
        device=device.kind,
        cache_dtype=cache_dtype_of(cache),
        block_size=cache.block_size,
    )
    names = attention_backend(args, device.kind)
    if names == DEVICE_DEFAULTS["cpu"].attention_backend:
        return  # one of these serves any layer, and to try the first would compile its kernels
    select_backends(names, [plain], check=lambda theirs, ours, problem: [])  # computes nothing


def _has_weights(args: EngineArgs, files: ModelFiles) -> bool | None:
    """Whether the local folder of a model has weights; None for a model from a hub."""
    if not Path(args.model).expanduser().is_dir():
        return None
    return choose_weight_files([one.name for one in files.path.iterdir()]) is not None


def _check_folder(
    args: EngineArgs, files: ModelFiles, source: ModelSource, *, is_whole: bool
) -> None:
    """Check the weights and tokenizer, as an engine would, if the folder has weights."""
    from quire.models.loading import check_weights, plan_of
    from quire.tokenizer.loading import load_tokenizer
    from quire.weights.checkpoint import open_checkpoint

    if is_whole and args.load_format != "dummy":
        checkpoint = open_checkpoint(files.path, args.load_format)
        if source.impl == "quire":
            check_weights(plan_of(files.config, files.architecture), checkpoint)
    if (is_whole or files.tokenizer != files.path) and not args.skip_tokenizer_init:
        load_tokenizer(
            files.tokenizer, mode=args.tokenizer_mode, trust_remote_code=args.trust_remote_code
        )


def _device(args: EngineArgs, memory: int | str | None) -> DeviceInfo:
    """The device to plan for; a GPU may be planned for where there is none."""
    if memory is None:
        if args.device == "cuda" and platform.default_device() == "cpu":
            raise ValueError(
                "device 'cuda': there is no GPU here to take the memory size from; give "
                "the size of yours, such as --memory 24GiB"
            )
        return platform.device_info(device_kind(args))
    num_bytes = parse_bytes(memory)
    if args.device == "cpu":
        return replace(platform.cpu_info(), name="a CPU", memory_bytes=num_bytes)
    device_kind(args)  # refuses what is no device
    fast = frozenset({"float16", "bfloat16"})
    return DeviceInfo(kind="cuda", name="a GPU", memory_bytes=num_bytes, fast_dtypes=fast)


def _budget(
    cache: CacheConfig, told: ToldSize | None, device: DeviceInfo, *, is_invented: bool
) -> tuple[int, int]:
    """(bytes an engine may use, bytes of those for neither weights nor KV cache)."""
    reserve = 0 if device.kind == "cpu" else GPU_RESERVE_BYTES
    if told is not None:
        return device.memory_bytes, reserve  # whatever else is asked or free
    if device.kind == "cpu":
        return device.memory_bytes if is_invented else platform.available_memory(), reserve
    return int(device.memory_bytes * cache.gpu_memory_utilization), reserve


def _needed(
    cache: CacheConfig, told: ToldSize | None, memory: Memory, reserve: int, kv_bytes: int
) -> int:
    """Memory in which an engine takes the told KV cache, or chooses one of at least
    ``kv_bytes``."""
    if told is not None:
        return memory.weights + reserve + max(told.num_bytes, kv_bytes)
    if memory.device == "cpu":
        return memory.weights + math.ceil(kv_bytes / CPU_SHARE_FOR_ONE_REQUEST)
    return math.ceil((memory.weights + reserve + kv_bytes) / cache.gpu_memory_utilization)
