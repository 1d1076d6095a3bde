"""resolve: from `EngineArgs` to the frozen `EngineConfig`, where every automatic choice is made.

Knows the machine's limits and which values are compatible. What is known only after loading (number
of blocks, seconds) is in `EngineFacts`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quire import compat, env, log, platform
from quire.arg_types import check_types
from quire.args import BUNDLED_MODEL, EngineArgs, choices_of, parse_max_model_len
from quire.attention.packages import PACKAGES
from quire.config import (
    DEFAULT_GPU_MEMORY_UTILIZATION,
    DEVICE_DEFAULTS,
    FP8_DTYPES,
    CacheConfig,
    DeviceConfig,
    DeviceDefaults,
    EngineConfig,
    LoadConfig,
    ModelConfig,
    SchedulerConfig,
)
from quire.kv_budget import Memory, with_kv_memory
from quire.model_files import ModelFiles, find_model_files
from quire.models.context_length import ContextLength, resolve_context_length
from quire.near_names import did_you_mean
from quire.platform import DeviceInfo
from quire.plugins import load_plugins
from quire.sizes import format_bytes, parse_bytes, parse_count
from quire.step_output import EngineFacts

if TYPE_CHECKING:
    from quire.models.source import ModelFacts, ModelSource

logger = logging.getLogger(__name__)

MOST_SEQS = 1 << 20  # each has a row as long as the longest text
BLOCK_SIZES = (8, 16, 32, 64, 128)

_DTYPE_ALIASES = {"half": "float16", "float": "float32"}
_FP8_ALIASES = {"fp8": "fp8_e4m3"}
_REMARKS = {
    "fp8_e4m3": ", those beyond 448 to 448; if answers suffer, fp8_e5m2 reaches further",
    "fp8_e5m2": "; if answers suffer, fp8_e4m3 is finer for those up to 448",
}
# Models whose activations exceed 65504, the largest float16: the output becomes NaN. By model type
# and by architecture, since a config may have one without the other.
_OVERFLOW_FLOAT16 = (
    *("gemma2", "gemma3", "gemma3_text", "glm4"),
    *("Gemma2ForCausalLM", "Gemma3ForCausalLM", "Glm4ForCausalLM"),
)


def resolve(args: EngineArgs) -> EngineConfig:
    """Check ``args``, make the automatic choices and log those that may surprise."""
    from quire.models.loading import facts_of

    log.setup()
    load_plugins()
    env.note_what_has_no_effect()
    check_alone(args)
    device = platform.device_info(device_kind(args))
    defaults = DEVICE_DEFAULTS[device.kind]
    files = find_model_files(args)
    source = model_source(args, files, device)
    facts = facts_of(source, device.kind)
    length = context_length(args, files, facts)
    config = EngineConfig(
        model=_model_config(args, files, source, facts, length),
        load=_load_config(args),
        cache=cache_config(args, defaults),
        scheduler=scheduler_config(args, length.longest, defaults),
        device=_device_config(args, device),
    )
    memory = Memory(
        device=device.kind,
        total=device.memory_bytes,
        free=platform.available_memory() if device.kind == "cpu" else device.memory_bytes,
        weights=facts.weight_bytes,
    )
    _note_unused(args, device)
    if config.cache.cache_dtype != "auto":
        logger.info(
            "kv_cache_dtype=%s: keys and values are rounded, without scales%s",
            config.cache.cache_dtype,
            _REMARKS[config.cache.cache_dtype],
        )
    return with_kv_memory(config, facts.kv_layout, memory)


def check_alone(args: EngineArgs) -> None:
    """``ValueError`` for errors in ``args`` that depend on neither the model nor the device.

    Uses some device's defaults, which are always valid.
    """
    check_types(args)
    _check_parallel(args)
    _load_config(args)
    defaults = next(iter(DEVICE_DEFAULTS.values()))
    cache_config(args, defaults)
    length = _wanted_length(args)
    scheduler_config(args, length if isinstance(length, int) else 1, defaults)
    _at_least(-1, "max_logprobs", args.max_logprobs)
    _known_attention("attention_backend", args.attention_backend or "auto")


def describe(config: EngineConfig, facts: EngineFacts) -> str:
    """The choices of a started engine as a short table, for the log."""
    phases = ", ".join(f"{name} {took:.2f}" for name, took in facts.phase_seconds.items())
    rows = {
        "model": f"{config.model.model} ({config.model.architecture})",
        "dtype": config.model.dtype,
        "device": _device_text(config.device),
        "attention": facts.attention_backend,
        "weights": format_bytes(facts.weight_bytes),
        "KV cache": f"{format_bytes(facts.kv_cache_bytes)}: {facts.num_blocks} blocks of "
        f"{facts.block_size}, {facts.kv_capacity_tokens:,} tokens"
        f"{'' if config.cache.cache_dtype == 'auto' else f', {config.cache.cache_dtype}'}",
        "max_model_len": f"{facts.max_model_len:,} tokens, "
        f"{facts.max_concurrency:.1f} requests of that length at once",
        "step": f"{config.scheduler.max_num_batched_tokens:,} tokens, "
        f"{config.scheduler.max_num_seqs} completions",
        "seconds": phases or "none measured",
    }
    width = max(map(len, rows))
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows.items())


def resolve_dtype(wanted: str, stored: str, device: DeviceInfo, *names: str) -> str:
    """``wanted`` or, for "auto", the stored format where the device is fast at it; never float16
    for a model that overflows it, by ``names``: its type and architecture."""
    name = str(wanted).removeprefix("torch.")  # torch.bfloat16 itself is welcome too
    name = _DTYPE_ALIASES.get(name, name)
    overflows = next((one for one in names if one in _OVERFLOW_FLOAT16), None)
    if name == "float16" and overflows:
        raise ValueError(
            f"dtype={wanted!r}: {overflows} models compute values beyond 65504, the largest "
            "float16, so their output would be NaN; use bfloat16 or float32"
        )
    if name != "auto":
        return _one_of("dtype", name, choices_of("dtype"))
    chosen = _auto_dtype(stored, device, has_float16=not overflows)
    if chosen != stored:
        remark = f"; set dtype={stored} to keep it" if stored in choices_of("dtype") else ""
        if stored == "float16" and overflows:
            remark = f"; {overflows} models overflow float16"
        logger.info(
            "dtype=auto: weights stored as %s are run in %s on %s%s",
            stored,
            chosen,
            device.name,
            remark,
        )
    return chosen


def _kv_cache_dtype(wanted: str | None, dtype: str = "") -> str:
    """One of `FP8_DTYPES`; or "auto" for that too and for ``dtype``, the model's (empty: unknown
    yet)."""
    name = str(wanted or "auto").removeprefix("torch.")
    name = {**_DTYPE_ALIASES, **_FP8_ALIASES}.get(name, name)
    if name in FP8_DTYPES:
        return name
    if name not in choices_of("dtype"):
        choices = ("auto", *_FP8_ALIASES, *FP8_DTYPES)
        raise ValueError(
            f"kv_cache_dtype={wanted!r} is none of {_listed(choices)} and the model's dtype"
            f"{did_you_mean(name, choices)}"
        )
    if dtype and name not in ("auto", dtype):
        raise ValueError(
            f"kv_cache_dtype={wanted!r}: the KV cache has the dtype of the model, {dtype}, or one "
            f"of {_listed(FP8_DTYPES)}; leave it at 'auto', or give dtype={name!r} too"
        )
    return "auto"


def _auto_dtype(stored: str, device: DeviceInfo, *, has_float16: bool) -> str:
    if stored == "float32" and device.kind == "cpu":
        return "float32"
    if stored == "bfloat16" and device.kind == "cpu":
        return "bfloat16"  # half the memory traffic counts for more than missing instructions
    fast = device.fast_dtypes if has_float16 else device.fast_dtypes - {"float16"}
    if stored in fast and stored != "float32":
        return stored
    # float32 weights on a GPU, float16 on a CPU, or a format that is none of the three.
    if "bfloat16" in fast:
        return "bfloat16"
    return "float16" if has_float16 and device.kind == "cuda" else "float32"


def _check_parallel(args: EngineArgs) -> None:
    """Refuse more devices than one."""
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        size = getattr(args, name)
        if size != 1:
            raise ValueError(f"{name}={size}: only one process computes yet; leave it at 1")


def device_kind(args: EngineArgs) -> str:
    """The device that ``args`` select: "cuda" or "cpu"."""
    kind = _one_of("device", args.device, choices_of("device"))
    return platform.default_device() if kind == "auto" else kind


def _load_config(args: EngineArgs) -> LoadConfig:
    return LoadConfig(
        load_format=_one_of("load_format", args.load_format, choices_of("load_format")),
        use_tqdm=args.use_tqdm_on_load,
    )


def cache_config(args: EngineArgs, defaults: DeviceDefaults) -> CacheConfig:
    """What ``args`` say about the KV cache; its size may still be open."""
    block_size = args.block_size if args.block_size is not None else defaults.block_size
    if block_size not in BLOCK_SIZES:
        raise ValueError(f"block_size={block_size} is not one of {_listed(BLOCK_SIZES)}")
    if not 0 < args.gpu_memory_utilization <= 1:
        raise ValueError(
            f"gpu_memory_utilization={args.gpu_memory_utilization} is a share of the GPU's "
            "memory; give a number above 0 and at most 1"
        )
    num_blocks = args.num_gpu_blocks_override
    if num_blocks is not None and num_blocks < 2:
        raise ValueError(
            f"num_gpu_blocks_override={num_blocks} is too few; give at least 2 "
            "(one block is never used)"
        )
    memory = args.kv_cache_memory_bytes
    return CacheConfig(
        block_size=block_size,
        num_blocks=num_blocks,
        memory_bytes=_parsed("kv_cache_memory_bytes", parse_bytes, memory),
        gpu_memory_utilization=args.gpu_memory_utilization,
        enable_prefix_caching=args.enable_prefix_caching,
        cache_dtype=_kv_cache_dtype(args.kv_cache_dtype),
    )


def model_source(args: EngineArgs, files: ModelFiles, device: DeviceInfo) -> ModelSource:
    """The model in ``files``, with the dtype and the implementation that it will have."""
    from quire.models.loading import choose_implementation
    from quire.models.source import ModelSource

    model_type = str(files.config.get("model_type"))
    dtype = resolve_dtype(args.dtype, files.stored_dtype, device, model_type, files.architecture)
    _kv_cache_dtype(args.kv_cache_dtype, dtype)
    return ModelSource(
        path=files.path,
        hf_config=files.config,
        architecture=files.architecture,
        dtype=dtype,
        impl=choose_implementation(args.model_impl, files.architecture),
        trust_remote_code=args.trust_remote_code,
    )


def context_length(args: EngineArgs, files: ModelFiles, facts: ModelFacts) -> ContextLength:
    """The longest request that ``args`` and the model allow."""
    wanted, limit = _wanted_length(args), facts.length_limit
    if limit is not None and isinstance(wanted, int) and wanted > limit.num_tokens:
        raise ValueError(
            f"max_model_len={wanted} is more than {limit.num_tokens}: {limit.why}; use "
            f"max_model_len={limit.num_tokens} or less"
        )
    length = resolve_context_length(
        wanted,
        config=files.config,
        tokenizer_config=files.tokenizer_config,
        num_learned_positions=facts.num_learned_positions,
    )
    if limit is None or length.longest <= limit.num_tokens:
        return length
    logger.warning("max_model_len is %d: %s", limit.num_tokens, limit.why)
    return replace(length, longest=limit.num_tokens)


def _wanted_length(args: EngineArgs) -> int | str | None:
    try:
        length = parse_max_model_len(args.max_model_len)
    except ValueError as error:
        raise ValueError(f"max_model_len: {error}") from None
    if isinstance(length, int) and length < 1:
        raise ValueError(
            f"max_model_len={length} is not a length; give a number of tokens of at least 1, "
            "or 'auto' for what fits in memory"
        )
    return length


def default_served_name(model: str) -> str:
    """The model as the user typed it; for the bundled one its folder's name, not the path."""
    return BUNDLED_MODEL.name if model == str(BUNDLED_MODEL) else model


def _model_config(
    args: EngineArgs,
    files: ModelFiles,
    source: ModelSource,
    facts: ModelFacts,
    length: ContextLength,
) -> ModelConfig:
    names = args.served_model_name or [default_served_name(args.model)]
    return ModelConfig(
        model=args.model,
        path=files.path,
        tokenizer=files.tokenizer,
        hf_config=files.config,
        generation_config=files.generation_config,
        max_tokens_limit=files.max_tokens_limit,
        architecture=files.architecture,
        dtype=source.dtype,
        max_model_len=length.longest,
        max_model_len_source=length.source,
        vocab_size=facts.vocab_size,
        revision=args.revision,
        model_impl=source.impl,
        trust_remote_code=args.trust_remote_code,
        tokenizer_mode=args.tokenizer_mode,
        skip_tokenizer_init=args.skip_tokenizer_init,
        served_model_name=(names,) if isinstance(names, str) else tuple(names),
        max_logprobs=args.max_logprobs,
        seed=args.seed or 0,
    )


def scheduler_config(
    args: EngineArgs, max_model_len: int, defaults: DeviceDefaults
) -> SchedulerConfig:
    """The limits of a step, checked against each other."""
    num_seqs, num_tokens = _step_limits(args, max_model_len, defaults)
    threshold = _count("long_prefill_token_threshold", args.long_prefill_token_threshold, least=0)
    depth = defaults.steps_in_flight if args.steps_in_flight is None else args.steps_in_flight
    return SchedulerConfig(
        max_num_seqs=num_seqs,
        max_num_batched_tokens=num_tokens,
        long_prefill_token_threshold=threshold or 0,
        policy=_one_of(
            "scheduling_policy", args.scheduling_policy, choices_of("scheduling_policy")
        ),
        enable_chunked_prefill=args.enable_chunked_prefill,
        steps_in_flight=_at_least(1, "steps_in_flight", depth),
        short_step_tokens=defaults.short_step_tokens if args.enable_chunked_prefill else None,
    )


def _step_limits(args: EngineArgs, max_model_len: int, defaults: DeviceDefaults) -> tuple[int, int]:
    """``max_num_seqs`` and ``max_num_batched_tokens``; an unset one is fitted to the other."""
    num_seqs = _count("max_num_seqs", args.max_num_seqs)
    num_tokens = _count("max_num_batched_tokens", args.max_num_batched_tokens)
    whole_prompt = 1 if args.enable_chunked_prefill else max_model_len
    if num_tokens is None:
        least = max(num_seqs or 1, whole_prompt)
        num_tokens = max(defaults.max_num_batched_tokens, least)
    if num_tokens < whole_prompt:
        raise ValueError(
            f"max_num_batched_tokens={num_tokens} is smaller than max_model_len={max_model_len}, "
            "so a long prompt would never fit in a step; raise it, lower max_model_len, or let "
            "enable_chunked_prefill be true"
        )
    if num_seqs is None:
        num_seqs = min(defaults.max_num_seqs, num_tokens)
    if num_seqs > MOST_SEQS:
        raise ValueError(
            f"max_num_seqs={num_seqs} is more than the limit of {MOST_SEQS}; "
            "lower it: requests that do not run wait"
        )
    if num_tokens < num_seqs:
        raise ValueError(
            f"max_num_batched_tokens={num_tokens} is smaller than max_num_seqs={num_seqs}, and "
            "every running completion needs one token of a step; raise the one or lower the other"
        )
    return num_seqs, num_tokens


def _count(name: str, value: int | str | None, least: int = 1) -> int | None:
    return _parsed(name, parse_count, value, least)


def _parsed(
    name: str,
    parse: Callable[[int | str], int],
    value: int | str | None,
    least: int = 1,
) -> int | None:
    """A number that may be written with a unit; errors name the argument."""
    if value is None:
        return None
    try:
        number = parse(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return _at_least(least, name, number)


def _device_config(args: EngineArgs, device: DeviceInfo) -> DeviceConfig:
    on_cpu = device.kind == "cpu"
    return DeviceConfig(
        device=device.kind,
        attention_backend=attention_backend(args, device.kind),
        enforce_eager=args.enforce_eager,
        num_threads=(env.NUM_THREADS.get() or platform.num_cpu_cores()) if on_cpu else None,
        step_timeout_s=env.STEP_TIMEOUT.get(),
    )


def attention_backend(args: EngineArgs, device: str) -> str:
    """The named backend, or else those to try, in order of preference, such as "fa3,triton"."""
    named = _known_attention("attention_backend", args.attention_backend or "auto")
    if named != "auto":
        return named
    default = [
        name
        for name in DEVICE_DEFAULTS[device].attention_backend.split(",")
        if name not in PACKAGES or any(map(find_spec, PACKAGES[name]))
    ]
    if _kv_cache_dtype(args.kv_cache_dtype) != "auto":
        default = default[-1:]  # which alone reads a cache of 8 bits
    variable = env.ATTENTION_BACKEND.source()
    preferred = _known_attention(
        f"environment variable {variable}", env.ATTENTION_BACKEND.get() or "auto"
    )
    if preferred == "auto":
        return ",".join(default)
    # If it is one of the defaults, it falls back to those after it.
    last = preferred.split(",")[-1]
    rest = default[default.index(last) + 1 :] if last in default else default
    return ",".join([preferred, *rest])


def _known_attention(said_in: str, name: str) -> str:
    try:
        return compat.attention_backend(name)
    except ValueError as error:
        raise ValueError(f"{said_in}={name!r}: {error}") from None


def _note_unused(args: EngineArgs, device: DeviceInfo) -> None:
    """Log a warning for arguments without effect on this model or device."""
    if device.kind == "cpu" and args.gpu_memory_utilization != DEFAULT_GPU_MEMORY_UTILIZATION:
        logger.warning(
            "gpu_memory_utilization=%s has no effect on a CPU; kv_cache_memory_bytes sets the size "
            "of the KV cache",
            args.gpu_memory_utilization,
        )
    tokenizer = args.tokenizer or args.model
    for name, folder in (("revision", args.model), ("tokenizer_revision", tokenizer)):
        revision = getattr(args, name)
        if revision is not None and Path(folder).expanduser().is_dir():
            logger.warning("%s=%s has no effect: %s is a local folder", name, revision, folder)


def _device_text(device: DeviceConfig) -> str:
    if device.num_threads is None:
        return device.device
    threads = "1 thread" if device.num_threads == 1 else f"{device.num_threads} threads"
    return f"{device.device}, {threads} ({env.NUM_THREADS.names[0]})"


def _at_least(least: int, name: str, value: int) -> int:
    if value < least:
        raise ValueError(f"{name}={value} is too small; give at least {least}")
    return value


def _one_of(name: str, value: str, choices: Collection[str]) -> str:
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {_listed(choices)}")
    return value


def _listed(choices: Collection[object]) -> str:
    return ", ".join(str(choice) for choice in choices)
