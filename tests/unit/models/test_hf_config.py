"""config.json is read strictly: types, spellings, rotary embeddings, and no key unaccounted for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from transformers import AutoConfig

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig, RopeConfig, apply_overrides


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


@pytest.mark.parametrize(
    ("read", "value", "wanted"),
    [
        (HFConfig.int, "3", "a whole number"),
        (HFConfig.int, 3.0, "a whole number"),
        (HFConfig.int, True, "a whole number"),
        (HFConfig.float, "1e-5", "a number"),
        (HFConfig.float, False, "a number"),
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


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, RopeConfig(theta=10000.0, type="default", params={})),
        ({"rope_theta": 5e6}, RopeConfig(theta=5e6, type="default", params={})),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            RopeConfig(theta=5e5, type="default", params={}),
        ),
        (
            {"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 2.0}},
            RopeConfig(theta=1e6, type="linear", params={"factor": 2.0}),
        ),
        (
            {"rope_scaling": {"rope_type": "llama3", "type": "llama3", **LLAMA3}},
            RopeConfig(theta=10000.0, type="llama3", params=LLAMA3),
        ),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **LLAMA3}},
            RopeConfig(theta=5e5, type="llama3", params=LLAMA3),
        ),
        (
            {
                "rope_scaling": {
                    "type": "su",
                    "rope_type": "longrope",
                    "short_factor": [1.0],
                    "long_factor": [2.0],
                },
                "original_max_position_embeddings": 4096,
            },
            RopeConfig(
                theta=10000.0,
                type="longrope",
                params={
                    "short_factor": [1.0],
                    "long_factor": [2.0],
                    "original_max_position_embeddings": 4096,
                },
            ),
        ),
    ],
)
def test_rope_reads_alike_in_old_and_new_files(data: dict[str, Any], expected: RopeConfig) -> None:
    hf = config(**data)
    assert hf.rope() == expected
    hf.check_unread()


def test_overridden_old_keys_win_over_new_ones() -> None:
    new = {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    overrides = {"rope_theta": 1e6, "rope_scaling": {"type": "dynamic", "factor": 4.0}}
    hf = HFConfig(apply_overrides(new, overrides), "X")
    assert hf.rope() == RopeConfig(theta=1e6, type="dynamic", params={"factor": 4.0})


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_an_overriding_rope_type_brings_its_own_parameters(key: str) -> None:
    """Not the old type with one number of the new."""
    written = {key: {"rope_type": "llama3", **LLAMA3}}
    overridden = apply_overrides(written, {"rope_scaling": {"type": "linear", "factor": 2.0}})
    assert HFConfig(overridden, "X").rope().type == "linear"
    assert HFConfig(overridden, "X").rope().params == {"factor": 2.0}


@pytest.mark.parametrize(
    "written",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}},
    ],
)
def test_the_newer_spelling_overrides_any_file(written: dict[str, Any]) -> None:
    def overridden(**params: Any) -> RopeConfig:
        def in_place(config: Any) -> None:
            config.rope_parameters = params

        by_function = HFConfig(apply_overrides({"rope_theta": 5e5}, in_place), "X").rope()
        by_dict = HFConfig(apply_overrides(written, {"rope_parameters": params}), "X").rope()
        assert by_function == by_dict
        return by_dict

    linear = {"rope_type": "linear", "factor": 2.0}
    assert overridden(**linear) == RopeConfig(theta=5e5, type="linear", params={"factor": 2.0})
    with_base = overridden(**linear, rope_theta=1e6)
    assert with_base == RopeConfig(theta=1e6, type="linear", params={"factor": 2.0})


def test_one_parameter_is_overridden_in_the_newer_spelling() -> None:
    written = {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}}
    for params in ({"factor": 2.0}, {"rope_theta": 1e6}):
        rope = HFConfig(apply_overrides(written, {"rope_parameters": params}), "X").rope()
        assert rope.type == "llama3"
        assert {**rope.params, "rope_theta": rope.theta} == {**LLAMA3, "rope_theta": 5e5, **params}


def test_an_overriding_type_of_one_kind_of_layers_leaves_the_others() -> None:
    plain = {"rope_type": "default", "rope_theta": 1e4}
    written = {"rope_parameters": {"full_attention": plain, "sliding_attention": plain}}
    scaled = {"full_attention": {"rope_type": "linear", "factor": 8.0}}
    hf = HFConfig(apply_overrides(written, {"rope_parameters": scaled}), "X")
    assert hf.rope(layer_type="full_attention").params == {"factor": 8.0}
    assert hf.rope(layer_type="full_attention").theta == 1e4
    assert hf.rope(layer_type="sliding_attention").type == "default"


def test_two_bases_that_differ_are_refused() -> None:
    written = {"rotary_emb_base": 1e4, "rope_parameters": {"rope_theta": 5e5}}
    with pytest.raises(UnsupportedModelError, match="'rotary_emb_base' = 10000 and 'rope_"):
        HFConfig(written, "X").rope(theta_keys=("rotary_emb_base", "rope_theta"))


def test_one_parameter_of_a_rope_type_can_be_overridden() -> None:
    overrides = {"rope_scaling": {"factor": 2.0}}
    data = apply_overrides({"rope_scaling": {"rope_type": "llama3", **LLAMA3}}, overrides)
    assert HFConfig(data, "X").rope().params == {**LLAMA3, "factor": 2.0}


def test_rope_differs_by_layer_type() -> None:
    hf = config(
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    )
    assert hf.rope(layer_type="full_attention").type == "linear"
    assert hf.rope(layer_type="sliding_attention").theta == 1e4


@pytest.mark.parametrize(
    "data",
    [
        {"rotary_pct": 0.25, "rotary_emb_base": 10000},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
    ],
)
def test_partial_rotation_is_read_from_either_place(data: dict[str, Any]) -> None:
    hf = config(**data)
    rope = hf.rope(theta_keys=("rope_theta", "rotary_emb_base"), partial_keys=("rotary_pct",))
    assert rope.partial == 0.25
    hf.check_unread()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rope_scaling": {"type": "banana"}}, "'banana'.* supported: default, linear, "),
        ({"rope_scaling": {"type": "linear"}}, "'linear' lacks factor"),
        ({"rope_scaling": {"type": "linear", "factor": "2"}}, "factor' = '2' must be a number"),
        ({"rope_scaling": {"type": "linear", "factor": 2, "x": 1}}, "'linear' has unknown x"),
        ({"rope_scaling": {"type": ["yarn"]}}, r"has type \"\['yarn'\]\", which is not supported"),
        (
            {"rope_scaling": {"type": "longrope", "short_factor": 1, "long_factor": [2]}},
            "short_factor' = 1 must be a list of numbers",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "truncate": 0}},
            "truncate' = 0 must be true or false",
        ),
        ({"rope_theta": "big"}, "'rope_theta' = 'big' must be a number"),
        ({"rope_theta": float("inf")}, "'rope_theta' = inf must be a number"),
        ({"rope_parameters": {"rope_theta": []}}, "'rope_parameters.rope_theta' = .* a number"),
        ({"rope_scaling": [1]}, "'rope_scaling' = .* must be an object"),
        (
            {"rope_parameters": {"rope_type": "yarn", "type": "linear", "factor": 2.0}},
            "rope_type 'yarn' and type 'linear', which mean the same and differ",
        ),
        ({"partial_rotary_factor": 0.5}, "rotates whole heads"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rotates whole heads"),
    ],
)
def test_rope_that_cannot_be_honoured_is_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        config(**data).rope()


def test_silence_may_mean_something_else_than_null() -> None:
    assert config().nullable_int("window", absent=7) == 7
    assert config(window=None).nullable_int("window", absent=7) is None
    assert config(window=3).nullable_int("window", absent=7) == 3


def test_overrides_merge_replace_and_empty() -> None:
    data = {"architectures": ["Old"], "a": {"x": 1, "y": 2}, "gone": 3, "kept": [1]}
    overrides = {
        "architectures": ["New"],
        "a": {"y": 5, "z": None},
        "gone": None,
        "added": {"b": 1},
    }
    result = apply_overrides(data, overrides)
    assert result == {
        "architectures": ["New"],
        "a": {"x": 1, "y": 5, "z": None},
        "gone": None,
        "kept": [1],
        "added": {"b": 1},
    }
    assert data["a"] == {"x": 1, "y": 2}
    assert apply_overrides(data, None) == data


def in_place(hf_config: Any) -> None:
    hf_config.architectures = ["New"]
    hf_config["a"]["x"] = 9


def returned(hf_config: Any) -> Any:
    hf_config.update({"architectures": ["New"], "a": {"x": 9}})
    return hf_config


@pytest.mark.parametrize("overrides", [in_place, returned])
def test_override_functions_may_change_or_return_the_config(
    overrides: Callable[[Any], Any],
) -> None:
    data = {"architectures": ["Old"], "a": {"x": 1}}
    assert apply_overrides(data, overrides) == {"architectures": ["New"], "a": {"x": 9}}
    assert data == {"architectures": ["Old"], "a": {"x": 1}}


def test_override_functions_see_keys_as_attributes() -> None:
    def read(hf_config: Any) -> None:
        assert hf_config.hidden_size == 8
        assert not hasattr(hf_config, "unknown")

    apply_overrides({"hidden_size": 8}, read)


@pytest.mark.parametrize("overrides", ["rope_theta=1", lambda hf_config: 3])
def test_useless_overrides_are_an_error(overrides: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        apply_overrides({"a": 1}, overrides)


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
