"""Names that users of other engines pass to a constructor or on the command line, as one table.

Each name that is not a field of `EngineArgs` has a verdict: another spelling of something Quire has
(alias), accepted because it changes nothing here (noted), or refused because accepting it silently
would change what the user gets. Knows nothing about the engine.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from quire import log
from quire.near_names import did_you_mean

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one name; values in ``harmless`` pass without a word."""

    kind: Literal["alias", "noted", "refused"]
    default: Any  # of any type: what a signature shows
    message: str  # why, and what to do instead
    replacement: str = ""  # of an alias: field, or "field.key" of a field that is a dict
    harmless: tuple[Any, ...] = ()
    short: tuple[str, ...] = ()  # its short flags
    takes_many: bool = False  # as a flag it takes several words


def _alias(replacement: str, default: Any = None) -> Verdict:
    return Verdict("alias", default, f"use {replacement}", replacement)


def _noted(default: Any, why: str, **flag: Any) -> Verdict:
    return Verdict("noted", default, why, harmless=(default, None), **flag)


def _refused(default: Any, why: str, *harmless: Any, **flag: Any) -> Verdict:
    return Verdict("refused", default, why, harmless=(default, None, *harmless), **flag)


QUANTIZATION = "quantized weights are not supported yet; use a checkpoint in bfloat16 or float16"
_LORA = "LoRA adapters are not supported yet; merge the adapter into the weights"
_SPECULATIVE = "speculative decoding is not supported yet; leave it out, the output is the same"
_PROMPT_ADAPTER = "prompt adapters are not supported; use merged weights"
_OFFLOAD = "weights cannot be offloaded yet; choose a smaller model or dtype"
_MEDIA = "only text prompts are supported yet"
_POOLING = "only text generation is supported yet, no embedding, scoring or classification"
_PARALLEL = "only one process computes yet; leave it at its default"
_PLUGIN = "this extension point does not exist in Quire"
_TRACING = "traces are not supported yet"
_OLD_SCHEDULER = "the scheduler has no such step"
_GRAPHS = "on a GPU, decode steps of up to max_num_seqs rows are captured unless enforce_eager"
_PREEMPTION = "preempted requests are recomputed, never swapped"
_POOL = "prompts are tokenized in the calling process"

VERDICTS: dict[str, Verdict] = {
    # Other spellings.
    "rope_scaling": _alias("hf_overrides.rope_scaling"),
    "rope_theta": _alias("hf_overrides.rope_theta"),
    "num_gpu_blocks": _alias("num_gpu_blocks_override"),
    # They change nothing here.
    "max_seq_len_to_capture": _noted(8192, _GRAPHS),
    "max_context_len_to_capture": _noted(None, _GRAPHS),
    "compilation_config": _noted(None, _GRAPHS, short=("-O",)),
    "disable_custom_all_reduce": _noted(False, "one process computes, nothing is reduced"),
    "distributed_executor_backend": _noted(None, "one process computes, so none is chosen"),
    "max_parallel_loading_workers": _noted(None, "one process loads"),
    "ray_workers_use_nsight": _noted(False, "Ray is not used"),
    "use_v2_block_manager": _noted(True, "there is one block manager"),
    "num_lookahead_slots": _noted(0, _OLD_SCHEDULER),
    "num_scheduler_steps": _noted(1, _OLD_SCHEDULER),
    "multi_step_stream_outputs": _noted(True, _OLD_SCHEDULER),
    "scheduler_delay_factor": _noted(0.0, _OLD_SCHEDULER),
    "max_num_partial_prefills": _noted(1, "one token budget serves all prompts"),
    "max_long_partial_prefills": _noted(1, "one token budget serves all prompts"),
    "disable_async_output_proc": _noted(False, _OLD_SCHEDULER),
    "async_scheduling": _noted(False, "use steps_in_flight to plan ahead"),
    "swap_space": _noted(4, _PREEMPTION),
    "preemption_mode": _noted(None, _PREEMPTION),
    "tokenizer_pool_size": _noted(0, _POOL),
    "tokenizer_pool_type": _noted("ray", _POOL),
    "tokenizer_pool_extra_config": _noted(None, _POOL),
    "model_impl": _noted("auto", "every supported model has one implementation"),
    "ignore_patterns": _noted(
        None, "only the files that are needed are downloaded", takes_many=True
    ),
    "model_loader_extra_config": _noted(None, "the loader has no options"),
    "guided_decoding_backend": _noted("auto", "there is no choice of grammar engine"),
    "structured_outputs_config": _noted(None, "there is no choice of grammar engine"),
    "speculative_disable_mqa_scorer": _noted(False, _OLD_SCHEDULER),
    "disable_logprobs_during_spec_decoding": _noted(True, "logprobs are always exact"),
    "disable_mm_preprocessor_cache": _noted(False, _MEDIA),
    "mm_processor_kwargs": _noted(None, _MEDIA),
    "limit_mm_per_prompt": _noted(None, _MEDIA),
    "allowed_local_media_path": _noted("", _MEDIA),
    "allowed_media_domains": _noted(None, _MEDIA),
    "disable_log_requests": _noted(True, "requests are not logged yet"),
    "enable_log_requests": _noted(False, "requests are not logged yet"),
    "disable_log_stats": _noted(False, "no statistics are logged yet"),
    "profiler_config": _noted(None, "there is no profiler"),
    "additional_config": _noted(None, "there is no platform that reads it"),
    "offload_group_size": _noted(0, _OFFLOAD),
    "offload_num_in_group": _noted(1, _OFFLOAD),
    "offload_prefetch_step": _noted(1, _OFFLOAD),
    # Features that are not built: refused when they are asked for.
    "quantization": _refused(None, QUANTIZATION, short=("-q",)),
    "quantization_config": _refused(None, QUANTIZATION),
    "kv_cache_dtype": _refused("auto", "the KV cache has the dtype of the model"),
    "calculate_kv_scales": _refused(False, "the KV cache is never quantized"),
    "qlora_adapter_name_or_path": _refused(None, _LORA),
    "enable_lora": _refused(False, _LORA),
    "enable_lora_bias": _refused(False, _LORA),
    "max_loras": _noted(1, _LORA),
    "max_lora_rank": _noted(16, _LORA),
    "max_cpu_loras": _noted(None, _LORA),
    "lora_extra_vocab_size": _noted(256, _LORA),
    "lora_dtype": _noted("auto", _LORA),
    "long_lora_scaling_factors": _refused(None, _LORA),
    "fully_sharded_loras": _noted(False, _LORA),
    "lora_modules": _refused(None, _LORA, [], takes_many=True),
    "enable_prompt_adapter": _refused(False, _PROMPT_ADAPTER),
    "prompt_adapters": _refused(None, _PROMPT_ADAPTER, [], takes_many=True),
    "max_prompt_adapters": _noted(1, _PROMPT_ADAPTER),
    "max_prompt_adapter_token": _noted(0, _PROMPT_ADAPTER),
    "speculative_config": _refused(None, _SPECULATIVE, {}),
    "speculative_model": _refused(None, _SPECULATIVE),
    "speculative_model_quantization": _refused(None, _SPECULATIVE),
    "num_speculative_tokens": _refused(None, _SPECULATIVE, 0),
    "speculative_draft_tensor_parallel_size": _refused(
        None, _SPECULATIVE, short=("-spec-draft-tp",)
    ),
    "speculative_max_model_len": _refused(None, _SPECULATIVE),
    "speculative_disable_by_batch_size": _refused(None, _SPECULATIVE),
    "ngram_prompt_lookup_max": _refused(None, _SPECULATIVE),
    "ngram_prompt_lookup_min": _refused(None, _SPECULATIVE),
    "spec_decoding_acceptance_method": _refused("rejection_sampler", _SPECULATIVE),
    "typical_acceptance_sampler_posterior_threshold": _noted(None, _SPECULATIVE),
    "typical_acceptance_sampler_posterior_alpha": _noted(None, _SPECULATIVE),
    "spec_method": _refused(None, _SPECULATIVE),
    "spec_model": _refused(None, _SPECULATIVE),
    "spec_tokens": _refused(None, _SPECULATIVE),
    "task": _refused("auto", _POOLING, "generate"),
    "runner": _refused("auto", _POOLING, "generate"),
    "convert": _refused("auto", _POOLING, "none"),
    "pooler_config": _refused(None, _POOLING),
    "override_pooler_config": _refused(None, _POOLING),
    "data_parallel_size": _refused(1, _PARALLEL, short=("-dp",)),
    "decode_context_parallel_size": _refused(1, _PARALLEL, short=("-dcp",)),
    "enable_expert_parallel": _refused(False, _PARALLEL),
    "nnodes": _refused(1, _PARALLEL),
    "cpu_offload_gb": _refused(0, _OFFLOAD),
    "offload_params": _refused(None, _OFFLOAD),
    "disable_sliding_window": _refused(False, "set max_model_len to the window instead"),
    "enable_sleep_mode": _refused(False, "sleep and wake-up are not supported yet"),
    "enable_return_routed_experts": _refused(False, "routed experts are not returned"),
    "return_sampling_mask": _refused(False, "sampling masks are not returned"),
    "kv_transfer_config": _refused(None, "KV caches cannot be moved between engines yet"),
    "kv_events_config": _refused(None, "cache events are not published"),
    "otlp_traces_endpoint": _refused(None, _TRACING),
    "collect_detailed_traces": _refused(None, _TRACING),
    "code_revision": _refused(
        None,
        "code comes from the same commit as the files beside it; give revision, or "
        "tokenizer_revision",
    ),
    "config_format": _refused("auto", "only config.json is read, not params.json", "hf"),
    "scheduler_cls": _refused(None, _PLUGIN),
    "worker_cls": _refused("auto", _PLUGIN),
    "worker_extension_cls": _refused("", _PLUGIN),
    "logits_processors": _refused(
        None, "pass logits_processors in SamplingParams instead of to the engine", []
    ),
    "logits_processor_pattern": _refused(None, "requests cannot name code to load"),
    "attention_config": _refused(None, "use attention_backend", {}),
    "override_neuron_config": _refused(None, "this build supports the devices cuda and cpu"),
}


def translate(given: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """Keyword arguments as `EngineArgs` takes them: aliases replaced, noted names dropped.

    A refused name that is set to something, and a name nobody knows, is a ``ValueError``. None is
    the same as not given.
    """
    kept = {name: value for name, value in given.items() if name in fields}
    for name, value in given.items():
        if name in kept:
            continue
        if name not in VERDICTS:
            raise ValueError(unknown_name(name, [*fields, *VERDICTS]))
        verdict = VERDICTS[name]
        if verdict.kind == "refused" and not _is_harmless(value, verdict):
            raise ValueError(f"{name}={value!r}: {verdict.message}")
        if verdict.kind == "noted" and not _is_harmless(value, verdict):
            log.setup()  # arguments are made before an engine that would do it
            logger.warning("%s=%r is accepted and has no effect: %s", name, value, verdict.message)
        if verdict.kind == "alias" and value is not None:
            _put(kept, verdict.replacement, value, said_as=name)
    return kept


def unknown_name(name: str, known: Collection[str]) -> str:
    """One line about a name nobody knows, with the nearest known ones."""
    return f"unknown argument {name!r}{did_you_mean(name, known)}"


def _is_harmless(value: object, verdict: Verdict) -> bool:
    return any(value == harmless for harmless in verdict.harmless)


def _put(kept: dict[str, Any], replacement: str, value: Any, said_as: str) -> None:
    name, _, key = replacement.partition(".")
    if not key:
        if kept.get(name) is not None:
            raise ValueError(f"{said_as} is another name of {name}; give only one of them")
        kept[name] = value
        return
    overrides = kept.get(name) or {}
    if not isinstance(overrides, dict):
        raise ValueError(f"{said_as} cannot be joined with a callable {name}; set it there")
    if key in overrides:
        raise ValueError(f"{said_as} is another name of {replacement}; give only one of them")
    kept[name] = {**overrides, key: value}
