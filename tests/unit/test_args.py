import argparse
import copy
import dataclasses
import inspect

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


@pytest.mark.parametrize("cls", [EngineArgs, AsyncEngineArgs])
def test_every_seed_era_name_is_in_the_signature(cls: type[EngineArgs]) -> None:
    parameters = inspect.signature(cls.__init__).parameters
    assert [name for name in SEED_FLAGS.split() if name not in parameters] == []


def test_no_name_is_both_a_field_and_a_verdict() -> None:
    assert {item.name for item in dataclasses.fields(AsyncEngineArgs)} & VERDICTS.keys() == set()


def test_arguments_are_a_plain_dataclass() -> None:
    args = EngineArgs("a-model", max_model_len="8k", swap_space=4)
    assert (args.model, args.max_model_len) == ("a-model", "8k")
    args.model = "another"
    assert dataclasses.replace(args, seed=3) == dataclasses.replace(copy.deepcopy(args), seed=3)


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max-model-len", "long"], "'long' is not a count"),
        (["--hf-overrides", "{"], "is not JSON"),
        (["--hf-overrides", "[1]"], "is not a JSON object"),
        (["--dtype", "int3"], "invalid choice: 'int3'"),
    ],
)
def test_wrong_flags_say_why(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse(words)
    assert message in capsys.readouterr().err
