import argparse
import copy
import dataclasses
import inspect
import logging

import pytest

from quire.args import AsyncEngineArgs, EngineArgs, parse_max_model_len
from quire.compat import VERDICTS

# Flags of `vllm serve` in its version 0.7 that concern an engine.
SEED_FLAGS = """
    model task tokenizer skip_tokenizer_init revision code_revision tokenizer_revision
    tokenizer_mode trust_remote_code allowed_local_media_path download_dir load_format
    config_format dtype kv_cache_dtype max_model_len guided_decoding_backend
    logits_processor_pattern model_impl distributed_executor_backend pipeline_parallel_size
    tensor_parallel_size max_parallel_loading_workers ray_workers_use_nsight block_size
    enable_prefix_caching disable_sliding_window use_v2_block_manager num_lookahead_slots seed
    swap_space cpu_offload_gb gpu_memory_utilization num_gpu_blocks_override
    max_num_batched_tokens max_num_partial_prefills max_long_partial_prefills
    long_prefill_token_threshold max_num_seqs max_logprobs disable_log_stats quantization
    rope_scaling rope_theta hf_overrides enforce_eager max_seq_len_to_capture
    disable_custom_all_reduce tokenizer_pool_size tokenizer_pool_type
    tokenizer_pool_extra_config limit_mm_per_prompt mm_processor_kwargs
    disable_mm_preprocessor_cache enable_lora enable_lora_bias max_loras max_lora_rank
    lora_extra_vocab_size lora_dtype long_lora_scaling_factors max_cpu_loras fully_sharded_loras
    enable_prompt_adapter max_prompt_adapters max_prompt_adapter_token device
    num_scheduler_steps multi_step_stream_outputs scheduler_delay_factor enable_chunked_prefill
    speculative_model speculative_model_quantization num_speculative_tokens
    speculative_disable_mqa_scorer speculative_draft_tensor_parallel_size
    speculative_max_model_len speculative_disable_by_batch_size ngram_prompt_lookup_max
    ngram_prompt_lookup_min spec_decoding_acceptance_method
    typical_acceptance_sampler_posterior_threshold typical_acceptance_sampler_posterior_alpha
    disable_logprobs_during_spec_decoding model_loader_extra_config ignore_patterns
    preemption_mode served_model_name qlora_adapter_name_or_path otlp_traces_endpoint
    collect_detailed_traces disable_async_output_proc scheduling_policy scheduler_cls
    override_neuron_config override_pooler_config compilation_config kv_transfer_config
    worker_cls generation_config override_generation_config enable_sleep_mode
    calculate_kv_scales additional_config disable_log_requests
"""
# Further ones that a later version has, or had for a while.
LATER_NAMES = """
    worker_use_ray engine_use_ray max_paddings image_input_type image_token_id image_input_shape
    image_feature_size image_processor image_processor_revision disable_image_processor
    quantization_param_path mm_cache_preprocessor pooling_type pooling_norm pooling_softmax
    pooling_step_tag_id pooling_returned_token_ids guided_decoding_disable_fallback
    guided_decoding_disable_any_whitespace guided_decoding_disable_additional_properties
    cuda_graph_sizes enable_microbatching num_redundant_experts eplb_window_size
    eplb_step_interval eplb_log_balancedness enable_multimodal_encoder_data_parallel
    override_attention_dtype disable_chunked_mm_input default_mm_loras model_weights
    safetensors_prefetch_num_threads safetensors_prefetch_block_size ir_op_priority
    distributed_timeout_seconds cpu_distributed_timeout_seconds numa_bind numa_bind_nodes
    numa_bind_cpus device_ids dcp_comm_backend dcp_q_replicate dcp_kv_cache_interleave_size
    cp_kv_cache_interleave_size data_parallel_multi_port_external_lb enable_batch_sharded_sampling
    enable_ep_weight_filter moe_backend linear_backend enable_elastic_ep ubatch_size
    dbo_decode_token_threshold dp_sync_interval dbo_prefill_token_threshold
    disable_nccl_for_dp_synchronization expert_placement_strategy prefix_cache_retention_interval
    offload_backend cpu_offload_params max_num_scheduled_tokens max_num_queued_reqs
    max_num_queued_tokens use_fp64_gumbel enable_trace_replay aggregate_engine_logging
    model_class_overrides allow_deprecated_quantization mm_hasher_algorithm mm_encoder_only
    mm_encoder_attn_backend mm_encoder_attn_dtype mm_encoder_fp8_scale_path
    mm_encoder_fp8_scale_save_path mm_encoder_fp8_scale_save_margin renderer_num_workers
    video_pruning_method mm_tensor_ipc mm_processor_device mm_ipc_gpu_memory_gb
    mm_device_do_normalize lora_target_modules enable_tower_connector_lora specialize_active_lora
    enable_mixed_moe_lora_format enable_moe_shared_loras scheduler_reserve_full_isl
    prefill_schedule_interval watermark diffusion_config per_request_spec_decode_metrics
    kv_cache_metrics_sample enable_logging_iteration_details jit_monitor_mode jit_monitor_verbose
    enable_mm_processor_stats mamba_config kernel_config enable_flashinfer_autotune
    enable_bf16x3_router_gemm ec_manager_config enable_cumem_allocator enable_nccl_comm_suspend
    kv_cache_dtype_skip_layers prefix_match_unit mamba_cache_mode replayssm_buffer_len
    use_replayssm mamba_backend mamba_ssu_algorithm enable_mamba_cache_stochastic_rounding
    mamba_cache_philox_rounds fault_tolerance_config enable_fault_tolerance tokens_only
    shutdown_timeout weight_transfer_config fail_on_environ_validation gdn_prefill_backend
    kda_prefill_backend
"""


@pytest.mark.parametrize("cls", [EngineArgs, AsyncEngineArgs])
def test_every_name_is_in_the_signature(cls: type[EngineArgs]) -> None:
    parameters = inspect.signature(cls.__init__).parameters
    names = [*SEED_FLAGS.split(), *LATER_NAMES.split()]
    assert [name for name in names if name not in parameters] == []


def test_no_name_is_both_a_field_and_a_verdict() -> None:
    assert {item.name for item in dataclasses.fields(AsyncEngineArgs)} & VERDICTS.keys() == set()


def test_arguments_are_a_plain_dataclass() -> None:
    args = EngineArgs("a-model", max_model_len="8k", swap_space=4)
    assert (args.model, args.max_model_len) == ("a-model", "8k")
    args.model = "another"
    assert dataclasses.replace(args, seed=3) == dataclasses.replace(copy.deepcopy(args), seed=3)


def test_an_attribute_that_is_set_counts_as_if_given_to_the_constructor() -> None:
    args = EngineArgs(hf_overrides={"a": 1})
    args.rope_theta = 4.0  # type: ignore[attr-defined]
    args.rope_theta = 5.0  # type: ignore[attr-defined]
    args.num_gpu_blocks = 7  # type: ignore[attr-defined]
    assert args == EngineArgs(hf_overrides={"a": 1}, rope_theta=5.0, num_gpu_blocks=7)
    args.rope_theta = None  # type: ignore[attr-defined]
    args.num_gpu_blocks = None  # type: ignore[attr-defined]
    assert args == EngineArgs(hf_overrides={"a": 1})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("quantization", "gptq", "^quantization='gptq': "),
        ("enable_lora", True, "^enable_lora=True: "),
        ("data_parallel_size", 4, "^data_parallel_size=4: "),
        ("max_modl_len", 3, "^unknown argument 'max_modl_len'; did you mean max_model_len"),
    ],
)
def test_an_attribute_that_nothing_would_heed_is_refused(
    name: str, value: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        setattr(EngineArgs(), name, value)


def test_every_name_can_be_read() -> None:
    args = EngineArgs(enable_lora=False, rope_theta=5.0, num_gpu_blocks=7)
    names = ("enable_lora", "task", "compilation_config", "rope_theta", "num_gpu_blocks")
    assert [getattr(args, name) for name in names] == [False, "auto", None, 5.0, 7]
    assert EngineArgs().rope_theta is None  # type: ignore[attr-defined]
    assert EngineArgs(hf_overrides=lambda config: config).rope_theta is None  # type: ignore[attr-defined]
    assert not hasattr(args, "nonsense")


def test_a_subclass_may_have_fields_of_its_own() -> None:
    @dataclasses.dataclass
    class Mine(EngineArgs):
        note: str = ""
        enable_lora: bool = True

    args = Mine(note="a")
    args.note += "b"
    assert (args.note, args.enable_lora) == ("ab", True)


def test_a_subclass_may_have_attributes_of_its_own() -> None:
    class Mine(EngineArgs):
        kind = "a"
        _doubled = 0

        def __init__(self, note: str, **given: object) -> None:
            self.note = note
            super().__init__(**given)  # type: ignore[arg-type]

        @property
        def task(self) -> int:
            return self._doubled

        @task.setter
        def task(self, value: int) -> None:
            self._doubled = 2 * value

    args = Mine("b", max_model_len=5)
    args.task = 3
    args.kind = "c"
    assert (args.note, args.task, args.kind, args.max_model_len) == ("b", 6, "c", 5)
    with pytest.raises(ValueError, match=r"^quantization='gptq': "):
        args.quantization = "gptq"


def test_a_dataclass_of_more_arguments_may_derive_attributes() -> None:
    @dataclasses.dataclass
    class Mine(EngineArgs):
        def __post_init__(self) -> None:
            self.half = self.seed // 2  # type: ignore[operator]

    assert Mine(seed=8).half == 4


@pytest.mark.parametrize("cls", [EngineArgs, AsyncEngineArgs])
def test_attributes_with_an_underscore_and_methods_are_no_arguments(cls: type[EngineArgs]) -> None:
    args = cls()
    args._note = "a"
    args.create_engine_config = len  # type: ignore[assignment, method-assign]
    assert (vars(args)["_note"], vars(args)["create_engine_config"]) == ("a", len)


def test_values_that_leave_the_choice_to_the_engine() -> None:
    args = EngineArgs(enable_prefix_caching=None, enable_chunked_prefill=None, hf_token=True)  # type: ignore[arg-type]
    assert args == EngineArgs()
    assert parse(["--hf-token"]) == EngineArgs()
    assert parse(["--hf-token", "abc"]).hf_token == "abc"


@pytest.mark.parametrize(("theirs", "ours"), [("npcache", "pt"), ("hf", "auto")])
def test_values_of_other_engines_become_ours(theirs: str, ours: str) -> None:
    assert EngineArgs(load_format=theirs) == EngineArgs(load_format=ours)
    assert parse(["--load-format", theirs]) == EngineArgs(load_format=ours)
    args = EngineArgs()
    args.load_format = theirs
    assert args.load_format == ours


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("load_format", "bitsandbytes", "quantized weights are not supported yet; use"),
        ("load_format", "sharded_state", "weights saved by a running engine are not read; use"),
        ("tokenizer_mode", "custom", "tokenizers cannot be registered; give a folder"),
        ("device", "tpu", "only NVIDIA GPUs and CPUs are supported; use auto"),
    ],
)
def test_values_of_other_engines_that_are_refused_say_why(
    capsys: pytest.CaptureFixture[str], name: str, value: str, why: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name}='{value}': {why}"):
        EngineArgs(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(SystemExit, match="2"):
        parse([f"--{name}".replace("_", "-"), value])
    assert f"'{value}': {why}" in capsys.readouterr().err


def test_a_length_among_the_overrides_is_that_of_the_engine() -> None:
    overrides = {"max_model_len": 8192, "a": 1}
    args = EngineArgs(hf_overrides=overrides)
    assert (args.max_model_len, args.hf_overrides) == (8192, {"a": 1})
    assert overrides == {"max_model_len": 8192, "a": 1}
    assert EngineArgs(hf_overrides={"max_model_len": None}, max_model_len=5).max_model_len == 5


def test_a_length_among_the_overrides_replaces_one_beside_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    overrides = {"max_model_len": 200}
    with caplog.at_level(logging.WARNING, logger="quire"):
        args = EngineArgs(hf_overrides=overrides, max_model_len=200)
        assert caplog.records == []
        EngineArgs(hf_overrides=overrides, max_model_len=100)
    assert [record.getMessage() for record in caplog.records] == [
        "hf_overrides.max_model_len=200 replaces max_model_len=100"
    ]
    changed = EngineArgs(max_model_len=100)
    changed.hf_overrides = overrides
    replaced = dataclasses.replace(EngineArgs(max_model_len=100), hf_overrides=overrides)
    assert args == changed == replaced
    assert dataclasses.replace(args, max_model_len=50).max_model_len == 50


def test_a_method_that_is_not_built_says_so() -> None:
    with pytest.raises(
        AttributeError, match=r"^EngineArgs\.create_model_config is not built yet: u"
    ):
        EngineArgs().create_model_config()  # type: ignore[attr-defined]


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(
        ValueError, match="unknown argument 'max_num_seq'; did you mean max_num_seq"
    ):
        EngineArgs(max_num_seq=3)


@pytest.mark.parametrize(
    ("value", "length"),
    [(None, None), (4096, 4096), ("8k", 8000), ("1M", 2**20), ("auto", "auto"), (-1, "auto")],
)
def test_max_model_len_forms(value: int | str | None, length: int | str | None) -> None:
    assert parse_max_model_len(value) == length


def parse(words: list[str], cls: type[EngineArgs] = EngineArgs) -> EngineArgs:
    parser = cls.add_cli_args(argparse.ArgumentParser())
    return cls.from_cli_args(parser.parse_args(words))


def test_no_seed_in_words_is_the_default() -> None:
    assert [parse(["--seed", word]).seed for word in ("None", "7")] == [0, 7]


def test_no_flags_give_the_defaults() -> None:
    assert parse([]) == EngineArgs()
    assert parse([], AsyncEngineArgs) == AsyncEngineArgs()


def test_flags_of_the_async_arguments_alone() -> None:
    """Programs that have added those of the engine, or will."""
    parser = EngineArgs.add_cli_args(argparse.ArgumentParser())
    AsyncEngineArgs.add_cli_args(parser, async_args_only=True)
    given = parser.parse_args(["--model", "m", "--enable-log-requests"])
    assert AsyncEngineArgs.from_cli_args(given) == AsyncEngineArgs("m")
    alone = AsyncEngineArgs.add_cli_args(argparse.ArgumentParser(), async_args_only=True)
    assert vars(alone.parse_args(["--disable-log-requests"])) == {"disable_log_requests": True}
    assert alone.parse_known_args(["--model", "m"])[1] == ["--model", "m"]


def test_flags_become_arguments() -> None:
    words = (
        "--model m --max-model-len 25.6k -tp 2 --kv-cache-memory-bytes 4GiB --no-use-tqdm-on-load"
    )
    args = parse([*words.split(), "--hf-overrides", '{"rope_theta": 1}', "--rope-scaling", "{}"])
    assert args == EngineArgs(
        "m",
        max_model_len=25600,
        tensor_parallel_size=2,
        kv_cache_memory_bytes=4 * 2**30,
        use_tqdm_on_load=False,
        hf_overrides={"rope_theta": 1, "rope_scaling": {}},
    )


def test_flags_of_other_engines_are_accepted_but_not_shown() -> None:
    parser = EngineArgs.add_cli_args(argparse.ArgumentParser())
    assert "--swap-space" not in parser.format_help()
    assert (
        parse(["--swap-space", "8", "--disable-log-requests", "--task", "generate"]) == EngineArgs()
    )
    assert parse(["-O3", "--async-scheduling"]) == EngineArgs()
    assert parse(["--disable-logprobs-during-spec-decoding"]) == EngineArgs()
    with pytest.raises(ValueError, match="quantization='awq': "):
        parse(["-q", "awq"])
    with pytest.raises(ValueError, match=r"lora_modules=\['a=x', 'b=y'\]: "):
        parse(["--lora-modules", "a=x", "b=y"])
    with pytest.raises(
        ValueError, match=r"logits_processors=\['a', 'b'\]: batch-level .* function"
    ):
        parse(["--logits-processors", "a", "b"])


# Of another engine: a bool or None, where None leaves the choice to it.
SWITCHES = """
    enable_flashinfer_autotune enable_bf16x3_router_gemm mm_device_do_normalize
    disable_nccl_for_dp_synchronization enable_batch_sharded_sampling dcp_q_replicate
"""


@pytest.mark.parametrize("name", SWITCHES.split())
@pytest.mark.parametrize(("prefix", "value"), [("--", True), ("--no-", False)])
def test_a_switch_without_a_default_takes_no_word(name: str, prefix: str, value: bool) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("which")
    EngineArgs.add_cli_args(parser)
    given = parser.parse_args([prefix + name.replace("_", "-"), "a-model"])
    assert (given.which, getattr(given, name)) == ("a-model", value)
    assert EngineArgs.from_cli_args(given) == EngineArgs()
    assert getattr(EngineArgs(), name) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-model-len", "long"], "'long' is not a count"),
        (["--hf-overrides", "{"], "is not JSON"),
        (["--hf-overrides", "[1]"], "is not a JSON object"),
        (["--dtype", "int3"], "invalid choice: 'int3'"),
        (["--tokenizer-mode", "foo"], "invalid choice: 'foo' (choose from "),
        (["--load-format", "gguf"], "argument --load-format: 'gguf': files of llama.cpp are not"),
    ],
)
def test_wrong_flags_say_why(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(words)
    assert message in capsys.readouterr().err
