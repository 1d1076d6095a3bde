"""Rotary embeddings read alike in older and newer files; what cannot be honoured is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.models.overrides import apply_overrides
from quire.models.rope_config import RopeConfig

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def config(**data: Any) -> HFConfig:
    return HFConfig(data, "TinyForCausalLM")


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


def test_a_trained_length_may_be_said_twice_but_not_differently() -> None:
    scaling = {"rope_type": "llama3", **LLAMA3}
    hf = config(rope_scaling=scaling, original_max_position_embeddings=64)
    assert hf.rope().params == LLAMA3
    hf.check_unread()
    with pytest.raises(UnsupportedModelError, match=r"= 32 and 'rope_scaling.*' = 64 mean"):
        config(rope_scaling=scaling, original_max_position_embeddings=32).rope()


def test_a_trained_length_without_a_scaling_that_uses_it_stays_unread() -> None:
    hf = config(rope_scaling={"type": "linear", "factor": 2}, original_max_position_embeddings=32)
    hf.rope()
    with pytest.raises(UnsupportedModelError, match="'original_max_position_embeddings' = 32"):
        hf.check_unread()


def test_scaling_of_a_family_whose_config_is_silent() -> None:
    linear = {"rope_type": "linear", "factor": 2.0}
    assert config(rope_theta=5.0).rope(silent=linear).type == "linear"
    assert config(rope_parameters={"rope_type": "default"}).rope(silent=linear).type == "default"


def test_two_bases_that_differ_are_refused() -> None:
    written = {"rotary_emb_base": 1e4, "rope_parameters": {"rope_theta": 5e5}}
    with pytest.raises(UnsupportedModelError, match="'rotary_emb_base' = 10000 and 'rope_"):
        HFConfig(written, "X").rope(theta_keys=("rotary_emb_base", "rope_theta"))


def test_rope_differs_by_layer_type() -> None:
    hf = config(
        rope_parameters={
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    )
    assert hf.rope(layer_type="full_attention").type == "linear"
    assert hf.rope(layer_type="sliding_attention").theta == 1e4


_YARN = {"type": "yarn", "factor": 16.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize(
    "more", [{"finetuned": True}, {"finetuned": False, "attn_factor": 1, "extrapolation_factor": 1}]
)
def test_what_published_yarn_configs_say_without_effect(more: dict[str, Any]) -> None:
    assert config(rope_scaling=_YARN | more).rope() == config(rope_scaling=_YARN).rope()
    with pytest.raises(UnsupportedModelError, match="'linear' has unknown"):
        config(rope_scaling={"type": "linear", "factor": 2} | more).rope()


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
def test_a_factor_that_counts_in_other_engines_alone_can_be_dropped(key: str) -> None:
    written = {key: _YARN | {"extrapolation_factor": 1.5}}
    with pytest.raises(UnsupportedModelError, match="extrapolation_factor") as refusal:
        config(**written).rope()
    remedy = json.loads(str(refusal.value).split("'")[5])
    assert config(**apply_overrides(written, remedy)).rope().params["factor"] == 16


def test_the_factor_of_cos_and_sin_has_one_name_at_a_time() -> None:
    assert config(rope_scaling=_YARN | {"attn_factor": 0.8}).rope().params["attn_factor"] == 0.8
    both = _YARN | {"attention_factor": 1.2}
    assert config(rope_scaling=both | {"attn_factor": 1}).rope() == config(rope_scaling=both).rope()
    with pytest.raises(UnsupportedModelError, match=r"= 1\.2 and '.*attn_factor' = 0\.8 both set"):
        config(rope_scaling=both | {"attn_factor": 0.8}).rope()


@pytest.mark.parametrize("more", [{"mrope_section": [1, 1, 2]}, {"factor": 8.0}])
def test_what_the_default_type_ignores_is_accepted(more: dict[str, Any]) -> None:
    assert config(rope_scaling={"rope_type": "default", **more}).rope() == config().rope()
    with pytest.raises(UnsupportedModelError, match="'default' has unknown x; it takes no param"):
        config(rope_scaling={"rope_type": "default", "x": 1, **more}).rope()


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_a_factor_that_is_null_is_the_ratio_of_lengths(where: str) -> None:
    trained = {"original_max_position_embeddings": 4096}
    scaling = {"type": "yarn", "factor": None} | (trained if where == "inside" else {})
    beside = trained if where == "beside" else {}
    data = {"rope_scaling": scaling, **beside}
    rope = config(max_position_embeddings=65536, **data).rope()
    assert rope == config(rope_scaling=_YARN).rope()
    with pytest.raises(UnsupportedModelError, match="'yarn' lacks factor"):
        config(**data).rope()


@pytest.mark.parametrize("where", ["inside", "beside"])
def test_a_factor_from_a_trained_length_above_the_longest_is_refused(where: str) -> None:
    trained = {"original_max_position_embeddings": 8192}
    data = {"rope_scaling": {"type": "yarn"}, "max_position_embeddings": 4096}
    data |= trained if where == "beside" else {"rope_scaling": {"type": "yarn", **trained}}
    path = r"rope_scaling\." if where == "inside" else ""
    message = (
        rf"'max_position_embeddings' = 4096 and '{path}original_max_position_embeddings' = 8192 "
        r"give 'rope_scaling\.factor' = 0\.5, which must be at least 1"
    )
    with pytest.raises(UnsupportedModelError, match=message) as refusal:
        config(**data).rope()
    remedy = json.loads(str(refusal.value).split("'")[-2])
    assert config(**apply_overrides(data, remedy)).rope().type == "default"
    data["max_position_embeddings"] = 8192
    assert config(**data).rope().params["factor"] == 1


def test_llama3_without_a_trained_length_leaves_it_to_the_reader() -> None:
    without = {key: value for key, value in LLAMA3.items() if not key.startswith("original")}
    assert config(rope_scaling={"type": "llama3", **without}).rope().params == without


@pytest.mark.parametrize(
    ("data", "key", "remedy"),
    [
        ({"rope_scaling": {"type": "banana"}}, "rope_scaling", {"rope_scaling": None}),
        (
            {"rope_parameters": {"rope_type": "linear", "rope_theta": 5e5}},
            "rope_parameters",
            {"rope_parameters": {"rope_type": "default"}},
        ),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "rope_theta": 5e5}}},
            "rope_parameters.full_attention",
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        ),
        ({"rope_scaling": {"factor": 4.0}}, "rope_scaling", {"rope_scaling": None}),
    ],
)
def test_refused_scaling_is_named_and_can_be_switched_off(
    data: dict[str, Any], key: str, remedy: dict[str, Any]
) -> None:
    layer_type = "full_attention" if "." in key else None
    with pytest.raises(UnsupportedModelError, match=f"^config key '{key}' ") as refusal:
        config(**data).rope(layer_type=layer_type)
    said = str(refusal.value).rsplit("--hf-overrides '")[1]
    assert json.loads(said.split("'")[0]) == remedy
    rope = config(**apply_overrides(data, remedy)).rope(layer_type=layer_type)
    assert (rope.type, rope.params) == ("default", {})
    assert rope.theta == (5e5 if "rope_parameters" in data else 10000.0)


def test_a_bad_value_is_named_by_the_key_that_the_config_has() -> None:
    written = {"rope_parameters": {"rope_type": "linear", "factor": -2}}
    with pytest.raises(UnsupportedModelError, match=r"'rope_parameters\.factor' = -2 must be"):
        config(**written).rope()


_LONG = {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("params", "key", "wanted"),
    [
        (_YARN | {"original_max_position_embeddings": 0}, "original_max_position_embeddings", "2"),
        (_YARN | {"mscale": -1.0}, "mscale", "0"),
    ],
)
def test_a_value_below_the_least_is_refused(params: dict[str, Any], key: str, wanted: str) -> None:
    message = f"'rope_scaling.{key}' = {params[key]} must be a number of at least {wanted}$"
    with pytest.raises(UnsupportedModelError, match=message):
        config(rope_scaling=params).rope()


@pytest.mark.parametrize(
    ("params", "key"),
    [
        ({"type": "linear", "factor": 0.0}, "factor"),
        ({"type": "linear", "factor": -2}, "factor"),
        (_YARN | {"factor": 0}, "factor"),
        (_LONG | {"factor": -4.0}, "factor"),
        ({"type": "llama3", **LLAMA3, "factor": -8.0}, "factor"),
        (_YARN | {"attention_factor": 0.0}, "attention_factor"),
        (_YARN | {"attn_factor": 0}, "attn_factor"),
        (_YARN | {"beta_fast": -32}, "beta_fast"),
        (_YARN | {"beta_slow": 0}, "beta_slow"),
        (_LONG | {"short_mscale": -1.0}, "short_mscale"),
        (_LONG | {"long_factor": [0.0]}, "long_factor"),
        ({"type": "llama3", **LLAMA3, "low_freq_factor": 0}, "low_freq_factor"),
    ],
)
def test_a_value_that_is_not_above_0_is_refused(params: dict[str, Any], key: str) -> None:
    message = rf"'rope_scaling.{key}' = .* must be a (list of )?numbers? above 0$"
    with pytest.raises(UnsupportedModelError, match=message):
        config(rope_scaling=params).rope()


def test_high_frequencies_are_above_low_ones() -> None:
    message = "high_freq_factor' = 1.0 must be above 'rope_scaling.low_freq_factor' = 1.0"
    with pytest.raises(UnsupportedModelError, match=message):
        config(rope_scaling={"type": "llama3", **LLAMA3, "high_freq_factor": 1.0}).rope()


@pytest.mark.parametrize(
    "params", [{"rope_type": "linear", "factor": 8.0}, {"full_attention": {"rope_theta": 1e6}}]
)
def test_a_type_of_layers_without_parameters_is_refused(params: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="has none under 'sliding_attention'"):
        config(rope_parameters=params).rope(layer_type="sliding_attention")


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


def test_a_share_that_is_null_is_refused_where_silence_means_a_part() -> None:
    """transformers takes it for the whole head."""
    keys = {"partial_keys": ("rope_pct", "partial_rotary_factor")}
    assert config().rope(**keys, partial=0.5).partial == 0.5
    message = "'partial_rotary_factor' of .* is null, which need not mean 0.5"
    with pytest.raises(UnsupportedModelError, match=message):
        config(partial_rotary_factor=None).rope(**keys, partial=0.5)
    assert config(partial_rotary_factor=None).rope(**keys).partial == 1
    assert (
        config(partial_rotary_factor=None, rope_pct=0.25).rope(**keys, partial=0.5).partial == 0.25
    )
    newer = {"rope_parameters": {"partial_rotary_factor": 0.25}, "partial_rotary_factor": None}
    assert config(**newer).rope(**keys, partial=0.5).partial == 0.25


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rope_scaling": {"type": "banana"}}, "'banana'.* supported: default, linear, "),
        ({"rope_scaling": {"type": "linear"}}, "'linear' lacks factor"),
        ({"rope_scaling": {"factor": 2}}, "'rope_scaling' has factor but no rope_type, which is"),
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
        (
            # On when absent; transformers takes null for false.
            {"rope_scaling": {"type": "yarn", "factor": 2, "truncate": None}},
            "truncate' = None must be true or false",
        ),
        (
            {"rope_scaling": {"type": "yarn", "factor": 2, "extrapolation_factor": 1.5}},
            r"'rope_scaling.extrapolation_factor' = 1.5 of type 'yarn' must be 1, which changes "
            r"nothing; --hf-overrides '{\"rope_scaling\": {\"extrapolation_factor\": null}}' "
            r"drops it, as transformers does$",
        ),
        ({"rope_theta": "big"}, "'rope_theta' = 'big' must be a number"),
        ({"rope_theta": -1e4}, "'rope_theta' = -10000 must be a number above 1"),
        ({"rope_parameters": {"rope_theta": 0}}, "'rope_theta' = 0 must be a number above 1"),
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
