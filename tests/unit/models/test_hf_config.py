"""config.json is read strictly: types, spellings, and no key unaccounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoConfig

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.models.overrides import apply_overrides


def config(**data: Any) -> HFConfig:
    return HFConfig(data, "TinyForCausalLM")


def test_values_are_read_by_type() -> None:
    hf = config(a=3, b=1, c=True, d="silu", e=[1, 2], f=0.5)
    assert hf.int("a") == 3
    assert hf.float("b") == 1.0
    assert isinstance(hf.float("b"), float)
    assert hf.bool("c") is True
    assert hf.str("d") == "silu"
    assert hf.list("e") == [1, 2]
    assert hf.optional_float("f") == 0.5
    assert hf.optional_int("a") == 3
    assert hf.optional_list("e") == [1, 2]


@pytest.mark.parametrize("data", [{}, {"a": None}])
def test_absent_and_null_keys_take_the_default(data: dict[str, None]) -> None:
    hf = config(**data)
    assert hf.int("a", 7) == 7
    assert hf.bool("a", False) is False
    assert hf.optional_int("a") is None
    assert hf.optional_float("a") is None
    assert hf.optional_list("a") is None
    with pytest.raises(UnsupportedModelError, match="'a' is missing; TinyForCausalLM needs it"):
        hf.int("a")


def test_null_is_refused_where_silence_means_true() -> None:
    """transformers takes it for false."""
    for switch in ("norm_topk_prob", ("old", "norm_topk_prob")):
        assert config().bool(switch, True) is True
        assert config(norm_topk_prob=False).bool(switch, True) is False
        message = (
            "'norm_topk_prob' of TinyForCausalLM is null, which need not mean True, as silence"
        )
        with pytest.raises(UnsupportedModelError, match=message):
            config(norm_topk_prob=None).bool(switch, True)
    assert config(old=True, norm_topk_prob=None).bool(("old", "norm_topk_prob"), True) is True


@pytest.mark.parametrize(
    ("read", "value", "wanted"),
    [
        (HFConfig.int, "3", "a whole number"),
        (HFConfig.int, 3.0, "a whole number"),
        (HFConfig.int, True, "a whole number"),
        (HFConfig.float, "1e-5", "a number"),
        (HFConfig.float, False, "a number"),
        (HFConfig.float, float("nan"), "a number"),
        (HFConfig.fraction, -1e-5, "a number from 0 to below 1"),
        (HFConfig.fraction, 1e30, "a number from 0 to below 1"),
        (HFConfig.bool, 1, "true or false"),
        (HFConfig.str, 1, "a string"),
        (HFConfig.list, "ab", "a list"),
        (HFConfig.optional_int, [], "a whole number or null"),
        (HFConfig.nested, [], "an object"),
    ],
)
def test_wrong_type_names_key_and_value(
    read: Callable[[HFConfig, str], Any], value: Any, wanted: str
) -> None:
    with pytest.raises(UnsupportedModelError) as error:
        read(config(key=value), "key")
    assert str(error.value) == f"config key 'key' = {value!r} must be {wanted}"


def test_the_first_spelling_present_is_read() -> None:
    assert config(n_head=4).int(("num_attention_heads", "n_head")) == 4
    both = config(n_head=4, num_attention_heads=4)
    assert both.int(("num_attention_heads", "n_head")) == 4
    both.check_unread()


def test_more_layers_than_any_model_has_are_refused() -> None:
    hf = config(n_layer=10**9).with_spellings(num_hidden_layers="n_layer")
    with pytest.raises(UnsupportedModelError, match=r"'n_layer' = 1000000000 must be at most 10,0"):
        hf.int("num_hidden_layers")


def test_spellings_that_contradict_each_other_are_refused() -> None:
    hf = config(n_head=4, num_attention_heads=8)
    with pytest.raises(UnsupportedModelError, match="'num_attention_heads' = 8 and 'n_head' = 4"):
        hf.int(("num_attention_heads", "n_head"))


def test_choice_names_the_value_and_what_is_supported() -> None:
    options = {"silu": 1, "gelu": 2}
    assert config(hidden_act="gelu").choice("hidden_act", options) == 2
    assert config().choice("hidden_act", options, "silu") == 1
    with pytest.raises(UnsupportedModelError, match=r"'banana' .* supported: silu, gelu"):
        config(hidden_act="banana").choice("hidden_act", options)


def test_key_that_nobody_read_is_refused_with_the_remedy() -> None:
    hf = config(hidden_size=64, foo=3)
    assert hf.int("hidden_size") == 64
    with pytest.raises(UnsupportedModelError) as error:
        hf.check_unread()
    assert str(error.value) == (
        "config key 'foo' = 3 changes behaviour that TinyForCausalLM in Quire does not implement; "
        "drop it with --hf-overrides '{\"foo\": null}' if it has no effect"
    )


def test_following_the_remedy_helps_also_in_nested_configs() -> None:
    data = {"foo": 3, "attn_config": {"clip": 8, "qk_ln": True, "attn_pdrop": 0.1}}
    hf = HFConfig(data, "X")
    assert hf.nested("attn_config").int("clip") == 8
    with pytest.raises(UnsupportedModelError, match=r"'attn_config\.qk_ln' = True") as error:
        hf.check_unread()
    remedy = json.loads(str(error.value).split("'")[-2])
    cured = HFConfig(apply_overrides(data, remedy), "X")
    cured.nested("attn_config").int("clip")
    cured.check_unread()


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", [], {}])
def test_key_that_says_nothing_is_let_pass(value: Any) -> None:
    config(new_feature=value).check_unread()


@pytest.mark.parametrize("key", ["is_causal", "use_rope", "rmsnorm"])
def test_a_switch_that_is_on_unless_said_is_not_trivial_when_off(key: str) -> None:
    config(**{key: None}).check_unread()
    with pytest.raises(UnsupportedModelError, match=f"'{key}' = False changes behaviour"):
        config(**{key: False}).check_unread()


def test_families_add_inert_keys() -> None:
    config(foo=3, bar_a=4).check_unread(frozenset({"foo", "bar_*"}))


@pytest.mark.parametrize(
    "data",
    [
        {"_attn_qk_norm": True},
        {"init_scale": 2.0},
        {"initializer_scale": 2.0},
        {"classifier_head": True},
        {"summary_scale": 2.0},
        {"pruned_heads": {"0": [1]}},
    ],
    ids=lambda data: next(iter(data)),
)
def test_a_key_that_only_looks_inert_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{next(iter(data))}' = .* changes behaviour"):
        config(**data).check_unread()


def test_keys_that_transformers_keeps_to_itself_are_inert() -> None:
    config(
        _attn_implementation_autoset=True,
        _commit_hash="4e20de3",
        _flash_attn_2_enabled=True,
        _from_model_config=True,
        _name_or_path="x",
        init_config={"init_std": 0.02},
        init_device="cpu",
        initializer_range=0.02,
        classifier_dropout=0.1,
        pruned_heads={},
        summary_first_dropout=0.1,
    ).check_unread()


def test_what_trainers_write_into_every_config_is_inert() -> None:
    written = {
        "is_llama_config": True,
        "is_qwen2_config": True,
        "custom_pipeline": {"text-generation": {"impl": "h2oai_pipeline.H2OTextGeneration"}},
    }
    config(**written, rope_interleaved=False).check_unread()
    with pytest.raises(UnsupportedModelError, match="key 'rope_interleaved' = True changes"):
        config(**written, rope_interleaved=True).check_unread()


def test_quantization_is_not_taken_for_inert() -> None:
    with pytest.raises(UnsupportedModelError, match="quantization_config"):
        config(quantization_config={"bits": 4}).check_unread()


@pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "qwen3", "gemma", "mixtral"])
def test_configs_as_transformers_writes_them_leave_only_behaviour(model_type: str) -> None:
    """What must stay unread and reported is exactly what an architecture has to decide on."""
    hf = HFConfig(AutoConfig.for_model(model_type).to_dict(), model_type)
    hf.rope()
    with pytest.raises(UnsupportedModelError) as error:
        hf.check_unread()
    message = str(error.value)
    assert "'hidden_size'" in message
    for inert in ("initializer_range", "eos_token_id", "attention_dropout", "num_beams", "dtype"):
        assert inert not in message


def test_old_generation_defaults_are_inert() -> None:
    config(
        architectures=["A"],
        _name_or_path="x",
        bos_token_id=1,
        num_beams=1,
        length_penalty=1.0,
        temperature=1.0,
        max_length=20,
        id2label={"0": "LABEL_0"},
        pretraining_tp=2,
        torch_dtype="float16",
        resid_pdrop=0.1,
        hidden_dropout=0.1,
        summary_type="cls_index",
        gradient_checkpointing=[False],
        use_cache=True,
        transformers_version="4.29.2",
    ).check_unread()


def test_silence_may_mean_something_else_than_null() -> None:
    assert config().nullable_int("window", absent=7) == 7
    assert config(window=None).nullable_int("window", absent=7) is None
    assert config(window=3).nullable_int("window", absent=7) == 3


def test_fixed_key_may_be_absent_and_nothing_else() -> None:
    for data in ({}, {"rotary": None}, {"rotary": True}):
        hf = HFConfig(data, "GPTJForCausalLM")
        hf.fixed("rotary", True)
        hf.check_unread()
    with pytest.raises(UnsupportedModelError, match=r"'rotary' = False .*GPTJForCausalLM.* True"):
        HFConfig({"rotary": False}, "GPTJForCausalLM").fixed("rotary", True)


def test_family_that_spells_the_usual_keys_its_own_way() -> None:
    def reader(**data: int) -> HFConfig:
        return HFConfig(data, "Test").with_spellings(hidden_size=("n_embd", "d"), layers="n_layer")

    for key in ("hidden_size", "n_embd", "d"):
        hf = reader(**{key: 8})
        assert hf.int("hidden_size") == 8
        hf.check_unread()
    with pytest.raises(UnsupportedModelError, match="config key 'n_embd' is missing"):
        reader(n_layer=1).int("hidden_size")
    with pytest.raises(UnsupportedModelError, match=r"'n_embd' = 8 and 'hidden_size' = 9 .*differ"):
        reader(n_embd=8, hidden_size=9).int("hidden_size")
    assert reader(n_layer=3).int(("depth", "layers")) == 3
