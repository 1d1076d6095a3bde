"""What users change of a config.json: merged in, and in either spelling of rotary embeddings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quire.models.hf_config import HFConfig
from quire.models.overrides import apply_overrides
from quire.models.rope_config import RopeConfig

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


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


def test_an_overriding_scaling_brings_its_trained_length() -> None:
    """Phi-3 has the length beside its scaling."""
    written = {"original_max_position_embeddings": 4096, "max_position_embeddings": 8192}
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    hf = HFConfig(apply_overrides(written, {"rope_scaling": yarn}), "X")
    assert hf.rope().params["original_max_position_embeddings"] == 32
    both = {"rope_scaling": yarn, "original_max_position_embeddings": 64}
    with pytest.raises(ValueError, match=r"= 64 and .* = 32 mean the same"):
        HFConfig(apply_overrides(written, both), "X").rope()


def test_one_parameter_of_a_rope_type_can_be_overridden() -> None:
    overrides = {"rope_scaling": {"factor": 2.0}}
    data = apply_overrides({"rope_scaling": {"rope_type": "llama3", **LLAMA3}}, overrides)
    assert HFConfig(data, "X").rope().params == {**LLAMA3, "factor": 2.0}


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
