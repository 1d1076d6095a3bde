import logging
import re

import pytest

from quire.compat import VERDICTS, attention_backend, translate

FIELDS = ("model", "hf_overrides", "num_gpu_blocks_override")


def test_aliases_become_fields() -> None:
    given = {"model": "m", "rope_theta": 5.0, "rope_scaling": {"type": "linear"}}
    assert translate(given, FIELDS) == {
        "model": "m",
        "hf_overrides": {"rope_theta": 5.0, "rope_scaling": {"type": "linear"}},
    }


def test_an_alias_beside_its_field_is_refused() -> None:
    with pytest.raises(ValueError, match="num_gpu_blocks is another name of"):
        translate({"num_gpu_blocks": 3, "num_gpu_blocks_override": 4}, FIELDS)
    with pytest.raises(ValueError, match=r"rope_theta is another name of hf_overrides\.rope_theta"):
        translate({"rope_theta": 3.0, "hf_overrides": {"rope_theta": 4.0}}, FIELDS)


def test_an_alias_does_not_disappear_into_a_callable() -> None:
    with pytest.raises(ValueError, match="callable hf_overrides"):
        translate({"hf_overrides": lambda config: config, "rope_theta": 1.0}, FIELDS)


def test_noted_names_are_logged_only_when_they_say_something(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING, logger="quire"):
        assert translate({"swap_space": 4, "use_v2_block_manager": True}, FIELDS) == {}
        assert caplog.records == []
        assert translate({"swap_space": 16}, FIELDS) == {}
    assert [record.getMessage() for record in caplog.records] == [
        "swap_space=16 is accepted and has no effect: "
        "preempted requests are recomputed, never swapped"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quantization", "gptq"),
        ("enable_lora", True),
        ("speculative_config", {"method": "ngram"}),
        ("task", "embed"),
        ("cpu_offload_gb", 4),
        ("config_format", "mistral"),
        ("code_revision", "abc123"),
        ("prompt_adapters", ["a=b"]),
        ("reasoning_parser", "qwen3"),
    ],
)
def test_what_is_not_built_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'{name}={value!r}: ')}"):
        translate({name: value}, FIELDS)


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("structured_outputs_config", {"disable_any_whitespace": True}, "disable_any_whitespace"),
        (
            "structured_outputs_config",
            {"backend": "auto", "disable_additional_properties": True},
            "disable_additional_properties",
        ),
        ("structured_outputs_config", {"enable_in_reasoning": True}, "enable_in_reasoning"),
        ("structured_outputs_config", {"reasoning_parser": "qwen3"}, "reasoning_parser"),
        ("guided_decoding_backend", "xgrammar:disable-any-whitespace", "disable-any-whitespace"),
        (
            "guided_decoding_backend",
            "guidance:no-fallback,no-additional-properties",
            "no-additional-properties",
        ),
    ],
)
def test_what_would_change_constrained_answers_is_refused_by_its_key(
    name: str, value: object, key: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name}=.*: {key} is not supported: "):
        translate({name: value}, FIELDS)


def test_the_rest_of_what_is_said_of_grammars_is_noted(caplog: pytest.LogCaptureFixture) -> None:
    config = {"backend": "outlines", "disable_any_whitespace": False}
    given = {
        "structured_outputs_config": config,
        "guided_decoding_backend": "xgrammar:no-fallback",
    }
    with caplog.at_level(logging.WARNING, logger="quire"):
        assert translate(given, FIELDS) == {}
    assert [one.getMessage().partition("=")[0] for one in caplog.records] == [*given]


def test_the_word_none_is_no_quantization(caplog: pytest.LogCaptureFixture) -> None:
    """It is one of the choices that the flag's own help has."""
    assert translate({"quantization": "None", "speculative_model_quantization": "None"}, ()) == {}
    assert caplog.records == []


@pytest.mark.parametrize("name", VERDICTS)
def test_a_name_that_says_nothing_passes_without_a_word(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="quire"):
        assert translate({name: VERDICTS[name].default}, FIELDS) == {}
        assert translate({name: None}, FIELDS) == {}
    assert caplog.records == []


@pytest.mark.parametrize("value", [[], {}, set(), ()])
def test_what_is_empty_asks_for_nothing(value: object, caplog: pytest.LogCaptureFixture) -> None:
    given = dict.fromkeys(("limit_mm_per_prompt", "lora_modules", "kv_transfer_config"), value)
    assert translate(given, FIELDS) == {}
    assert caplog.records == []


def test_cache_events_may_be_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    assert translate({"kv_events_config": {"enable_kv_cache_events": False}}, FIELDS) == {}
    assert caplog.records == []
    with pytest.raises(ValueError, match="cache events are not published"):
        translate({"kv_events_config": {"enable_kv_cache_events": True}}, FIELDS)


def test_logits_processors_of_an_engine_are_told_what_to_become() -> None:
    with pytest.raises(ValueError, match=r"write a function of .*--logits-processor-pattern"):
        translate({"logits_processors": ["my.module:Class"]}, FIELDS)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match="unknown argument 'modle'; did you mean model"):
        translate({"modle": 1}, FIELDS)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("auto", "auto"),
        ("triton", "triton"),
        ("FlashInfer", "flashinfer"),
        ("FLASH_ATTN", "fa3"),
        ("TRITON_ATTN_VLLM_V1", "triton"),
        ("TORCH_SDPA", "torch"),
        ("CPU_ATTN", "cpp,torch"),
    ],
)
def test_attention_backends_have_our_names_and_theirs(name: str, ours: str) -> None:
    assert attention_backend(name) == ours


def test_an_attention_backend_that_is_not_here_comes_with_the_closest() -> None:
    with pytest.raises(ValueError, match="'FLASHINFER_MLA' in Quire; the closest: flashinfer"):
        attention_backend("FLASHINFER_MLA")
    with pytest.raises(ValueError, match="'IPEX' in Quire; the closest: auto"):
        attention_backend("IPEX")
    with pytest.raises(ValueError, match=r"'tritn' is not one of auto, cpp, .*mean triton"):
        attention_backend("tritn")
