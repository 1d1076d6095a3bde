"""Names that users of other engines pass to a constructor or on the command line, as one table.

Each name that is not a field of `EngineArgs` has a verdict: another spelling of something Quire has
(alias), accepted because it changes nothing here (noted), or refused because accepting it silently
would change what the user gets. Knows nothing about the engine.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from quire import log
from quire.near_names import did_you_mean
from quire.not_built import LORA, PROMPT_ADAPTER

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one name is treated; values in ``harmless`` are accepted silently."""

    kind: Literal["alias", "noted", "refused"]
    default: Any  # of any type: what a signature shows
    message: str  # why, and what to do instead
    replacement: str = ""  # of an alias: field, or "field.key" of a field that is a dict
    harmless: tuple[Any, ...] = ()
    short: tuple[str, ...] = ()  # its short flags
    takes_many: bool = False  # as a flag it takes several words
    is_switch: bool = False  # as a flag it takes no value, as with a bool default
    refused_keys: Mapping[str, str] = field(default_factory=dict)  # keys of a dict -> why not


def alias(replacement: str) -> Verdict:
    """Another spelling of something that Quire has."""
    return Verdict("alias", None, f"use {replacement}", replacement)


def noted(default: Any, why: str, *harmless: Any, **flag: Any) -> Verdict:
    """Accepted, with a log line that says why it has no effect unless the value is harmless."""
    return Verdict("noted", default, why, harmless=(default, None, *harmless), **flag)


def refused(default: Any, why: str, *harmless: Any, **flag: Any) -> Verdict:
    """An error unless the value is harmless, that is, asks for nothing."""
    return Verdict("refused", default, why, harmless=(default, None, *harmless), **flag)


QUANTIZATION = "quantized weights are not supported yet; use a checkpoint in bfloat16 or float16"
_SPECULATIVE = "speculative decoding is not supported yet; leave it out, the output is the same"
_OFFLOAD = "weights cannot be offloaded yet; choose a smaller model or dtype"
_MEDIA = "only text prompts are supported yet"
POOLING = "only text generation is supported yet, no embedding, scoring or classification"
_PARALLEL = "only one process computes yet; leave it at its default"
_EXCHANGE = "one process computes, nothing is exchanged"
_KERNELS = "kernels are chosen by device and shape"
_STATE_SPACE = "there are no state-space models"
_NO_RAY = "Ray is not used"
_LOADER = "the loader has no options"
_NO_CACHE_SCALES = "keys and values of an fp8 cache have no scales"
_NUMA = "processes are not bound to nodes of memory; start Quire under numactl"
PLUGIN = "this extension point does not exist in Quire"
BATCH_PROCESSORS = (
    "batch-level logits processors (classes) are not supported; write a function of "
    "(output_token_ids, logits), and pass it in SamplingParams(logits_processors=[...]) or, with "
    "`quire serve --logits-processor-pattern`, name it in a request"
)
_ONLY_SERVED = "only `quire serve` {}"
_OLD_SCHEDULER = "the scheduler has no such step"
_OWN_SCHEDULERS = ("vllm.core.scheduler.Scheduler", "vllm.v1.core.sched.scheduler.Scheduler")
_GRAPHS = (
    "on a GPU, decode steps and others up to 2,048 tokens (full ones of small models too) are "
    "captured unless enforce_eager"
)
_PREEMPTION = "preempted requests are recomputed, never swapped"
_GRAMMARS = "each form of constraint has its own backend, see docs/structured_output.md"
_POOL = "prompts are tokenized in the calling process"
_REASONING = (
    "only LLM(reasoning_parser=...), `quire serve` and `quire run-batch` know the marks of thoughts"
)
# Options that would change answers: as keys of the config, and as suffixes of a backend name.
_GRAMMAR_OPTIONS = {
    "disable_any_whitespace": "ask for it in structured_outputs of requests",
    "disable_additional_properties": "ask for it in structured_outputs of requests",
    "enable_in_reasoning": "a grammar begins behind the thought",
    "reasoning_parser": _REASONING,
    "reasoning_parser_plugin": PLUGIN,
}
_OLD_GRAMMAR_OPTIONS = {
    "disable-any-whitespace": _GRAMMAR_OPTIONS["disable_any_whitespace"],
    "no-additional-properties": _GRAMMAR_OPTIONS["disable_additional_properties"],
}

VERDICTS: dict[str, Verdict] = {
    # Other spellings.
    "rope_scaling": alias("hf_overrides.rope_scaling"),
    "rope_theta": alias("hf_overrides.rope_theta"),
    "num_gpu_blocks": alias("num_gpu_blocks_override"),
    # Without effect here.
    "max_seq_len_to_capture": noted(8192, _GRAPHS),
    "max_context_len_to_capture": noted(8192, _GRAPHS),
    "compilation_config": noted(None, _GRAPHS, short=("-O", "-cc")),
    "disable_custom_all_reduce": noted(False, "one process computes, nothing is reduced"),
    "distributed_executor_backend": noted(None, "one process computes, so none is chosen"),
    "max_parallel_loading_workers": noted(None, "one process loads"),
    "ray_workers_use_nsight": noted(False, _NO_RAY),
    "worker_use_ray": noted(False, _NO_RAY),
    "engine_use_ray": noted(False, _NO_RAY),
    "use_v2_block_manager": noted(True, "there is one block manager"),
    "num_lookahead_slots": noted(0, _OLD_SCHEDULER),
    "num_scheduler_steps": noted(1, _OLD_SCHEDULER),
    "multi_step_stream_outputs": noted(True, _OLD_SCHEDULER),
    "scheduler_delay_factor": noted(0.0, _OLD_SCHEDULER),
    "max_paddings": noted(256, "nothing is padded"),
    "max_num_scheduled_tokens": noted(None, "use max_num_batched_tokens"),
    "prefill_schedule_interval": noted(1, _OLD_SCHEDULER),
    "scheduler_reserve_full_isl": noted(
        True, "a prompt starts as soon as its first step fits in the KV cache"
    ),
    "watermark": noted(0.0, "a prompt starts as soon as its first step fits in the KV cache"),
    "max_num_partial_prefills": noted(1, "one token budget serves all prompts"),
    "max_long_partial_prefills": noted(1, "one token budget serves all prompts"),
    "disable_async_output_proc": noted(False, _OLD_SCHEDULER),
    "async_scheduling": noted(False, "use steps_in_flight to plan ahead"),
    "swap_space": noted(4, _PREEMPTION),
    "preemption_mode": noted(None, _PREEMPTION, "recompute"),
    "tokenizer_pool_size": noted(0, _POOL),
    "tokenizer_pool_type": noted("ray", _POOL),
    "tokenizer_pool_extra_config": noted(None, _POOL),
    "ignore_patterns": noted(
        None, "only the files that are needed are downloaded", takes_many=True
    ),
    "model_loader_extra_config": noted(None, _LOADER),
    "guided_decoding_backend": noted("auto", _GRAMMARS, refused_keys=_OLD_GRAMMAR_OPTIONS),
    "guided_decoding_disable_fallback": noted(False, _GRAMMARS),
    "guided_decoding_disable_any_whitespace": refused(
        False, _GRAMMAR_OPTIONS["disable_any_whitespace"]
    ),
    "guided_decoding_disable_additional_properties": refused(
        False, _GRAMMAR_OPTIONS["disable_additional_properties"]
    ),
    "structured_outputs_config": noted(None, _GRAMMARS, refused_keys=_GRAMMAR_OPTIONS),
    "speculative_disable_mqa_scorer": noted(False, _OLD_SCHEDULER),
    "disable_logprobs_during_spec_decoding": noted(True, "logprobs are always exact"),
    "disable_mm_preprocessor_cache": noted(False, _MEDIA),
    "mm_cache_preprocessor": noted(False, _MEDIA),
    "mm_processor_kwargs": noted(None, _MEDIA),
    "disable_chunked_mm_input": noted(False, _MEDIA),
    "enable_multimodal_encoder_data_parallel": noted(False, _MEDIA),
    "image_input_type": noted(None, _MEDIA),
    "image_token_id": noted(None, _MEDIA),
    "image_input_shape": noted(None, _MEDIA),
    "image_feature_size": noted(None, _MEDIA),
    "image_processor": noted(None, _MEDIA),
    "image_processor_revision": noted(None, _MEDIA),
    "disable_image_processor": noted(False, _MEDIA),
    "limit_mm_per_prompt": noted(None, _MEDIA),
    "allowed_local_media_path": noted("", _MEDIA),
    "allowed_media_domains": noted(None, _MEDIA),
    "disable_log_requests": noted(True, "`quire serve --enable-log-requests` logs them"),
    "enable_log_requests": noted(False, _ONLY_SERVED.format("logs requests")),
    "disable_log_stats": noted(False, _ONLY_SERVED.format("logs statistics")),
    "aggregate_engine_logging": noted(False, "there is one engine"),
    "enable_logging_iteration_details": noted(False, "steps are not logged"),
    "fail_on_environ_validation": noted(False, "unknown variables only cause a warning"),
    "shutdown_timeout": noted(0, _ONLY_SERVED.format("waits for requests at its end")),
    "max_num_queued_reqs": refused(None, _ONLY_SERVED.format("limits its queue")),
    "max_num_queued_tokens": refused(None, _ONLY_SERVED.format("limits its queue, in requests")),
    "tokens_only": refused(False, "use skip_tokenizer_init"),
    "profiler_config": noted(None, "there is no profiler"),
    "additional_config": noted(None, "there is no platform that reads it"),
    "offload_group_size": noted(0, _OFFLOAD),
    "offload_num_in_group": noted(1, _OFFLOAD),
    "offload_prefetch_step": noted(1, _OFFLOAD),
    # Features that are not built: refused when they are asked for.
    "quantization": refused(None, QUANTIZATION, "None", short=("-q",)),
    "quantization_config": refused(None, QUANTIZATION),
    "quantization_param_path": refused(None, _NO_CACHE_SCALES),
    "allow_deprecated_quantization": noted(False, QUANTIZATION),
    "kv_cache_dtype_skip_layers": refused(
        None, "the KV cache of all layers has one dtype", takes_many=True
    ),
    "calculate_kv_scales": refused(False, _NO_CACHE_SCALES),
    "qlora_adapter_name_or_path": refused(None, LORA),
    "enable_lora": refused(False, LORA),
    "enable_lora_bias": refused(False, LORA),
    "max_loras": noted(1, LORA),
    "max_lora_rank": noted(16, LORA),
    "max_cpu_loras": noted(None, LORA),
    "lora_extra_vocab_size": noted(256, LORA),
    "lora_dtype": noted("auto", LORA),
    "long_lora_scaling_factors": refused(None, LORA),
    "fully_sharded_loras": noted(False, LORA),
    "default_mm_loras": refused(None, LORA),
    "lora_target_modules": noted(None, LORA, takes_many=True),
    "enable_tower_connector_lora": noted(False, LORA),
    "specialize_active_lora": noted(False, LORA),
    "enable_mixed_moe_lora_format": noted(False, LORA),
    "enable_moe_shared_loras": noted(False, LORA),
    "lora_modules": refused(None, LORA, takes_many=True),
    "enable_prompt_adapter": refused(False, PROMPT_ADAPTER),
    "prompt_adapters": refused(None, PROMPT_ADAPTER, takes_many=True),
    "max_prompt_adapters": noted(1, PROMPT_ADAPTER),
    "max_prompt_adapter_token": noted(0, PROMPT_ADAPTER),
    "speculative_config": refused(None, _SPECULATIVE, short=("-sc",)),
    "speculative_model": refused(None, _SPECULATIVE),
    "speculative_model_quantization": refused(None, _SPECULATIVE, "None"),
    "num_speculative_tokens": refused(None, _SPECULATIVE, 0),
    "speculative_draft_tensor_parallel_size": refused(
        None, _SPECULATIVE, short=("-spec-draft-tp",)
    ),
    "speculative_max_model_len": refused(None, _SPECULATIVE),
    "speculative_disable_by_batch_size": refused(None, _SPECULATIVE),
    "ngram_prompt_lookup_max": refused(None, _SPECULATIVE),
    "ngram_prompt_lookup_min": refused(None, _SPECULATIVE),
    "spec_decoding_acceptance_method": refused("rejection_sampler", _SPECULATIVE),
    "typical_acceptance_sampler_posterior_threshold": noted(None, _SPECULATIVE),
    "typical_acceptance_sampler_posterior_alpha": noted(None, _SPECULATIVE),
    "per_request_spec_decode_metrics": noted("none", _SPECULATIVE),
    "spec_method": refused(None, _SPECULATIVE),
    "spec_model": refused(None, _SPECULATIVE),
    "spec_tokens": refused(None, _SPECULATIVE),
    "task": refused("auto", POOLING, "generate"),
    "runner": refused("auto", POOLING, "generate"),
    "convert": refused("auto", POOLING, "none"),
    "pooler_config": refused(None, POOLING),
    "override_pooler_config": refused(None, POOLING),
    "pooling_type": refused(None, POOLING),
    "pooling_norm": refused(None, POOLING),
    "pooling_softmax": refused(None, POOLING),
    "pooling_step_tag_id": refused(None, POOLING),
    "pooling_returned_token_ids": refused(None, POOLING, takes_many=True),
    "diffusion_config": refused(None, POOLING),
    "data_parallel_size": refused(1, _PARALLEL, short=("-dp",)),
    "decode_context_parallel_size": refused(1, _PARALLEL, short=("-dcp",)),
    "enable_expert_parallel": refused(False, _PARALLEL, short=("-ep",)),
    "nnodes": refused(1, _PARALLEL),
    "cpu_offload_gb": refused(0, _OFFLOAD),
    "offload_params": refused(None, _OFFLOAD, takes_many=True),
    "cpu_offload_params": refused(None, _OFFLOAD, takes_many=True),
    "offload_backend": noted("auto", _OFFLOAD),
    "disable_sliding_window": refused(False, "set max_model_len to the window instead"),
    "enable_sleep_mode": refused(False, "sleep and wake-up are not supported yet"),
    "enable_cumem_allocator": noted(False, "torch allocates memory"),
    "enable_nccl_comm_suspend": noted(False, _EXCHANGE),
    "weight_transfer_config": refused(None, "the weights of a running engine cannot be replaced"),
    "enable_return_routed_experts": refused(False, "routed experts are not returned"),
    "return_sampling_mask": refused(False, "sampling masks are not returned"),
    "kv_transfer_config": refused(None, "KV caches cannot be moved between engines yet"),
    "kv_events_config": refused(
        None, "cache events are not published", {"enable_kv_cache_events": False}
    ),
    "otlp_traces_endpoint": refused(None, _ONLY_SERVED.format("sends traces")),
    "collect_detailed_traces": refused(None, "a request has one span, with its phases as events"),
    "code_revision": refused(
        None,
        "code comes from the same commit as the files beside it; give revision, or "
        "tokenizer_revision",
    ),
    "model_weights": refused("", "give the folder or the hub id as the model"),
    "model_class_overrides": refused(
        None, "register a plan function with ModelRegistry.register_model, see docs/models.md"
    ),
    "override_attention_dtype": refused(None, "attention has the dtype of the model; use dtype"),
    "use_fp64_gumbel": refused(
        False, "tokens are drawn by cumulative sums, without Gumbel noise; leave it out"
    ),
    "enable_trace_replay": refused(False, "requests cannot be recorded and replayed"),
    "config_format": refused("auto", "only config.json is read, not params.json", "hf"),
    "scheduler_cls": refused(None, PLUGIN, *_OWN_SCHEDULERS),
    "worker_cls": refused("auto", PLUGIN),
    "worker_extension_cls": refused("", PLUGIN),
    "logits_processors": refused(None, BATCH_PROCESSORS, takes_many=True),
    "logits_processor_pattern": noted(None, _ONLY_SERVED.format("lets requests name code")),
    "attention_config": refused(None, "use attention_backend", short=("-ac",)),
    "structured_outputs_backend": noted("auto", _GRAMMARS, refused_keys=_OLD_GRAMMAR_OPTIONS),
    "reasoning_config": refused(
        None,
        "--reasoning-parser knows the marks of thoughts; requests limit thoughts with "
        "thinking_token_budget",
    ),
    "reasoning_parser": refused(None, _REASONING, ""),
    "reasoning_parser_plugin": refused(None, PLUGIN, ""),
    "enable_reasoning": noted(False, "--reasoning-parser is enough"),
    "kv_offloading_size": refused(None, "the KV cache cannot be offloaded yet", 0),
    "kv_offloading_backend": noted(None, "the KV cache cannot be offloaded yet"),
    "kv_cache_metrics": noted(False, "blocks are counted anyway"),
    "kv_sharing_fast_prefill": noted(False, "prompts run through the same layers as answers"),
    "prefix_caching_hash_algo": noted("sha256", "there is one hash"),
    "prefix_cache_retention_interval": noted(None, "blocks are kept while there is room"),
    "prefix_match_unit": noted(None, "prefixes match by whole blocks"),
    "kv_cache_metrics_sample": noted(0.01, "blocks are counted anyway"),
    "cuda_graph_sizes": noted(None, _GRAPHS, takes_many=True),
    "cudagraph_capture_sizes": noted(None, _GRAPHS, takes_many=True),
    "max_cudagraph_capture_size": noted(None, _GRAPHS),
    "cudagraph_metrics": noted(False, _GRAPHS),
    "optimization_level": noted(None, _GRAPHS),
    "performance_mode": noted("balanced", "the defaults are meant for all loads"),
    "moe_backend": noted("auto", _KERNELS),
    "linear_backend": noted("auto", _KERNELS),
    "kernel_config": noted(None, _KERNELS),
    "ir_op_priority": noted(None, _KERNELS),
    "enable_flashinfer_autotune": noted(None, _KERNELS, is_switch=True),
    "enable_bf16x3_router_gemm": noted(None, _KERNELS, is_switch=True),
    "jit_monitor_mode": noted("warn", "kernels are compiled while the engine starts"),
    "jit_monitor_verbose": noted(False, "kernels are compiled while the engine starts"),
    "stream_interval": noted(
        1,
        "set stream_interval in SamplingParams; only `quire serve` has a default for all requests",
    ),
    "disable_hybrid_kv_cache_manager": noted(False, "there is one KV cache manager"),
    "mamba_cache_dtype": noted("auto", _STATE_SPACE),
    "mamba_ssm_cache_dtype": noted("auto", _STATE_SPACE),
    "mamba_block_size": noted(None, _STATE_SPACE),
    "mamba_backend": noted("triton", _STATE_SPACE),
    "mamba_cache_mode": noted("none", _STATE_SPACE),
    "mamba_config": noted(None, _STATE_SPACE),
    "mamba_ssu_algorithm": noted(None, _STATE_SPACE),
    "mamba_cache_philox_rounds": noted(0, _STATE_SPACE),
    "enable_mamba_cache_stochastic_rounding": noted(False, _STATE_SPACE),
    "use_replayssm": noted(False, _STATE_SPACE),
    "replayssm_buffer_len": noted(None, _STATE_SPACE),
    "gdn_prefill_backend": noted(None, _STATE_SPACE),
    "kda_prefill_backend": noted(None, _STATE_SPACE),
    "disable_cascade_attn": noted(False, "shared prefixes are read once where that is faster"),
    "safetensors_load_strategy": noted("lazy", _LOADER),
    "safetensors_prefetch_num_threads": noted(8, _LOADER),
    "safetensors_prefetch_block_size": noted(16 * 2**20, _LOADER),
    "pt_load_map_location": noted("cpu", _LOADER),
    "logprobs_mode": refused("raw_logprobs", "log-probabilities are those of the raw logits"),
    "enable_prompt_embeds": refused(False, "prompts are text or token ids"),
    "enable_mm_embeds": refused(False, _MEDIA),
    "interleave_mm_strings": noted(False, _MEDIA),
    "media_io_kwargs": noted(None, _MEDIA),
    "mm_processor_cache_gb": noted(4, _MEDIA),
    "mm_processor_cache_type": noted("lru", _MEDIA),
    "mm_encoder_tp_mode": noted("weights", _MEDIA),
    "mm_shm_cache_max_object_size_mb": noted(128, _MEDIA),
    "mm_encoder_only": noted(False, _MEDIA),
    "mm_encoder_attn_backend": noted(None, _MEDIA),
    "mm_encoder_attn_dtype": noted(None, _MEDIA),
    "mm_encoder_fp8_scale_path": noted(None, _MEDIA),
    "mm_encoder_fp8_scale_save_path": noted(None, _MEDIA),
    "mm_encoder_fp8_scale_save_margin": noted(None, _MEDIA),
    "mm_hasher_algorithm": noted(None, _MEDIA),
    "mm_tensor_ipc": noted("direct_rpc", _MEDIA),
    "mm_processor_device": noted("auto", _MEDIA),
    "mm_ipc_gpu_memory_gb": noted(None, _MEDIA),
    "mm_device_do_normalize": noted(None, _MEDIA, is_switch=True),
    "enable_mm_processor_stats": noted(False, _MEDIA),
    "renderer_num_workers": noted(1, _POOL),
    "skip_mm_profiling": noted(False, _MEDIA),
    "language_model_only": noted(False, _MEDIA),
    "video_pruning_rate": noted(None, _MEDIA),
    "video_pruning_method": noted(None, _MEDIA),
    "io_processor_plugin": refused(None, PLUGIN),
    "hf_config_path": refused(None, "give the folder that holds config.json as the model"),
    "all2all_backend": noted(None, _EXCHANGE),
    "enable_dbo": noted(False, _EXCHANGE),
    "enable_microbatching": noted(False, _EXCHANGE),
    "ubatch_size": noted(0, _EXCHANGE),
    "dbo_decode_token_threshold": noted(32, _EXCHANGE),
    "dbo_prefill_token_threshold": noted(512, _EXCHANGE),
    "dp_sync_interval": noted(None, _EXCHANGE),
    "disable_nccl_for_dp_synchronization": noted(None, _EXCHANGE, is_switch=True),
    "distributed_timeout_seconds": noted(None, _EXCHANGE),
    "cpu_distributed_timeout_seconds": noted(None, _EXCHANGE),
    "expert_placement_strategy": noted("linear", _EXCHANGE),
    "enable_ep_weight_filter": noted(False, _EXCHANGE),
    "enable_batch_sharded_sampling": noted(None, _EXCHANGE, is_switch=True),
    "dcp_comm_backend": noted("ag_rs", _EXCHANGE),
    "dcp_q_replicate": noted(None, _EXCHANGE, is_switch=True),
    "dcp_kv_cache_interleave_size": noted(1, _EXCHANGE),
    "cp_kv_cache_interleave_size": noted(1, _EXCHANGE),
    "numa_bind": noted(False, _NUMA),
    "numa_bind_nodes": noted(None, _NUMA, takes_many=True),
    "numa_bind_cpus": noted(None, _NUMA, takes_many=True),
    "device_ids": refused(None, "choose devices with CUDA_VISIBLE_DEVICES", takes_many=True),
    "enable_elastic_ep": refused(False, _PARALLEL),
    "enable_fault_tolerance": refused(False, "`quire serve --restart-engine` starts a new engine"),
    "fault_tolerance_config": refused(None, "`quire serve --restart-engine` starts a new engine"),
    "num_redundant_experts": noted(0, _PARALLEL),
    "eplb_window_size": noted(1000, _PARALLEL),
    "eplb_step_interval": noted(3000, _PARALLEL),
    "eplb_log_balancedness": noted(False, _PARALLEL),
    "enable_eplb": refused(False, _PARALLEL),
    "eplb_config": noted(None, _PARALLEL),
    "prefill_context_parallel_size": refused(1, _PARALLEL, short=("-pcp",)),
    "data_parallel_size_local": refused(None, _PARALLEL, 1, short=("-dpl",)),
    "data_parallel_rank": refused(None, _PARALLEL, 0, short=("-dpn",)),
    "data_parallel_start_rank": refused(None, _PARALLEL, 0, short=("-dpr",)),
    "data_parallel_address": noted(None, _PARALLEL, short=("-dpa",)),
    "data_parallel_rpc_port": noted(None, _PARALLEL, short=("-dpp",)),
    "data_parallel_backend": noted("mp", _PARALLEL, short=("-dpb",)),
    "data_parallel_hybrid_lb": refused(False, _PARALLEL, short=("-dph",)),
    "data_parallel_external_lb": refused(False, _PARALLEL, short=("-dpe",)),
    "data_parallel_multi_port_external_lb": refused(False, _PARALLEL, short=("-dpm",)),
    "node_rank": refused(0, _PARALLEL),
    "master_addr": noted("127.0.0.1", _PARALLEL),
    "master_port": noted(29501, _PARALLEL),
    "ec_transfer_config": refused(None, "there is no encoder to share"),
    "ec_manager_config": noted(None, "there is no encoder to share"),
    "enable_mfu_metrics": refused(False, "use of the device's arithmetic is not measured"),
    "show_hidden_metrics_for_version": noted(None, "no metric is hidden"),
    "enable_layerwise_nvtx_tracing": refused(False, "there is no profiler"),
    "override_neuron_config": refused(None, "this build supports the devices cuda and cpu"),
}

_LENGTH = "max_model_len"  # vLLM accepts it among the keys of config.json

ATTENTION_BACKENDS = ("auto", "cpp", "torch", "triton", "flashinfer", "fa3", "cudnn")

# What vLLM calls them -> ours, in the order in which they are tried.
_VLLM_ATTENTION = {
    "FLASH_ATTN": "fa3",
    "FLASH_ATTN_VLLM_V1": "fa3",
    "FLASHINFER": "flashinfer",
    "FLASHINFER_VLLM_V1": "flashinfer",
    "TRITON_ATTN": "triton",
    "TRITON_ATTN_VLLM_V1": "triton",
    "TORCH_SDPA": "torch",
    "TORCH_SDPA_VLLM_V1": "torch",
    "CPU_ATTN": "cpp,torch",
}
# vLLM's backends without a counterpart in Quire -> the closest one.
_NO_SUCH_ATTENTION = {
    "XFORMERS": "triton",
    "FLEX_ATTENTION": "triton",
    "TREE_ATTN": "triton",
    "DUAL_CHUNK_FLASH_ATTN": "fa3",
    "DIFFERENTIAL_FLASH_ATTN": "fa3",
    "ROCM_FLASH": "triton",
    "ROCM_ATTN": "triton",
    "ROCM_AITER_FA": "triton",
    "ROCM_AITER_UNIFIED_ATTN": "triton",
    "PALLAS": "auto",
    "IPEX": "auto",
    "FLASHMLA": "triton",
    "FLASHMLA_SPARSE": "triton",
    "TRITON_MLA": "triton",
    "CUTLASS_MLA": "triton",
    "FLASHINFER_MLA": "flashinfer",
    "FLASH_ATTN_MLA": "fa3",
}


def attention_backend(name: str) -> str:
    """Quire's name of an attention backend, or several in order of preference; a ``ValueError``
    gives the closest one."""
    if name.lower() in ATTENTION_BACKENDS:
        return name.lower()
    theirs = name.upper()
    if theirs in _VLLM_ATTENTION:
        return _VLLM_ATTENTION[theirs]
    if theirs in _NO_SUCH_ATTENTION:
        closest = _NO_SUCH_ATTENTION[theirs]
        raise ValueError(f"there is no attention backend {name!r} in Quire; the closest: {closest}")
    raise ValueError(
        f"attention backend {name!r} is not one of {', '.join(ATTENTION_BACKENDS)}"
        f"{did_you_mean(name, [*ATTENTION_BACKENDS, *_VLLM_ATTENTION])}"
    )


def translate(
    given: dict[str, Any], fields: Collection[str], verdicts: Mapping[str, Verdict] = VERDICTS
) -> dict[str, Any]:
    """Keyword arguments as `EngineArgs` takes them: aliases replaced, noted names dropped.

    A refused name that is set to something, and a name nobody knows, is a ``ValueError``. None is
    the same as not given. A ``max_model_len`` in ``hf_overrides`` becomes the engine's
    and replaces one given beside it.
    """
    kept = {name: value for name, value in given.items() if name in fields}
    _take_length(kept)
    for name, value in given.items():
        if name in kept:
            continue
        if name not in verdicts:
            raise ValueError(unknown_name(name, [*fields, *verdicts]))
        verdict = verdicts[name]
        if verdict.kind == "refused" and not _is_harmless(value, verdict):
            raise ValueError(f"{name}={value!r}: {verdict.message}")
        _check_keys(name, value, verdict.refused_keys)
        if verdict.kind == "noted" and not _is_harmless(value, verdict):
            log.setup()  # arguments are made before an engine that would do it
            logger.warning("%s=%r is accepted and has no effect: %s", name, value, verdict.message)
        if verdict.kind == "alias" and value is not None:
            _put(kept, verdict.replacement, value, said_as=name)
    return kept


def settle_other_flags(arguments: argparse.Namespace, verdicts: Mapping[str, Verdict]) -> None:
    """Remove the flags in ``verdicts`` from ``arguments``; ``ValueError`` for a refused one."""
    named = vars(arguments)
    translate({name: named.pop(name) for name in verdicts if name in named}, (), verdicts)


def assigned(
    name: str, value: Any, held: Mapping[str, Any], fields: Collection[str]
) -> dict[str, Any]:
    """The fields that change when ``name`` is set on arguments that hold ``held``."""
    if name in fields or name not in VERDICTS or VERDICTS[name].kind != "alias":
        return translate({name: value}, fields)
    field_name, _, key = VERDICTS[name].replacement.partition(".")
    if not key:
        return {field_name: value}
    overrides = _object(held.get(field_name), field_name, said_as=name)
    others = {one: given for one, given in overrides.items() if one != key}
    return {field_name: others if value is None else {**others, key: value}}


def told(name: str, held: Mapping[str, Any]) -> Any:
    """The value of a name of `VERDICTS`, read from arguments that hold ``held``."""
    verdict = VERDICTS[name]
    field_name, _, key = verdict.replacement.partition(".")
    value = held.get(field_name, verdict.default)
    if not key:
        return value
    return value.get(key) if isinstance(value, Mapping) else None


def unknown_name(name: str, known: Collection[str]) -> str:
    """A message about an unknown name, with the nearest known ones."""
    return f"unknown argument {name!r}{did_you_mean(name, known)}"


def _is_harmless(value: object, verdict: Verdict) -> bool:
    """Whether the value asks for nothing; empty lists, dicts and sets do not either."""
    return any(value == harmless for harmless in (*verdict.harmless, [], (), {}, set()))


def _check_keys(name: str, value: object, refused_keys: Mapping[str, str]) -> None:
    """``ValueError`` for a refused key that is set; in a string, keys follow a colon."""
    asked: Mapping[str, Any] = value if isinstance(value, Mapping) else {}
    if isinstance(value, str):
        asked = dict.fromkeys(value.partition(":")[2].split(","), True)
    for key, why in refused_keys.items():
        if asked.get(key):
            raise ValueError(f"{name}={value!r}: {key} is not supported: {why}")


def _take_length(kept: dict[str, Any]) -> None:
    """Move ``max_model_len`` from ``hf_overrides`` to the engine's arguments, which it
    overrides."""
    overrides = kept.get("hf_overrides")
    if not isinstance(overrides, Mapping) or _LENGTH not in overrides:
        return
    kept["hf_overrides"] = {key: one for key, one in overrides.items() if key != _LENGTH}
    length, beside = overrides[_LENGTH], kept.get(_LENGTH)
    if length is None:
        return
    if beside not in (None, length):
        log.setup()
        logger.warning("hf_overrides.%s=%r replaces %s=%r", _LENGTH, length, _LENGTH, beside)
    kept[_LENGTH] = length


def _put(kept: dict[str, Any], replacement: str, value: Any, said_as: str) -> None:
    name, _, key = replacement.partition(".")
    if not key:
        if kept.get(name) is not None:
            raise ValueError(f"{said_as} is another name of {name}; give only one of them")
        kept[name] = value
        return
    overrides = _object(kept.get(name), name, said_as)
    if key in overrides:
        raise ValueError(f"{said_as} is another name of {replacement}; give only one of them")
    kept[name] = {**overrides, key: value}


def _object(value: Any, name: str, said_as: str) -> Mapping[str, Any]:
    """The dict value of a field to which ``said_as`` adds a key; ValueError if it is a function."""
    if callable(value):
        raise ValueError(f"{said_as} cannot be joined with a callable {name}; set it there")
    return value or {}
