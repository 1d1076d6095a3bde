"""What families read alike: the rotation that a config describes, whatever its spelling."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.layers.spec import AlibiSpec, DynamicScaling, LinearScaling, LongRopeScaling, RopeSpec
from quire.models.alibi import alibi
from quire.models.architectures.llama import llama
from quire.models.common import attention_from, attention_with, rope_from
from quire.models.hf_config import HFConfig

_SIZES = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "max_position_embeddings": 2048,
}


def _hf(**keys: Any) -> HFConfig:
    return HFConfig(_SIZES | keys, "Test")


def _rope(hf: HFConfig, **options: Any) -> RopeSpec:
    return rope_from(hf, hf.rope(**options), 8)


def test_partial_and_interleaved_rotation() -> None:
    hf = _hf(rope_theta=50.0, rotary_pct=0.5)
    rope = hf.rope(partial_keys=("rotary_pct",))
    assert rope_from(hf, rope, 8, "interleaved") == RopeSpec(dim=4, theta=50.0, style="interleaved")


@pytest.mark.parametrize("share", [0.1, 0.4, 0.0])
def test_rotation_of_an_odd_number_of_values_is_refused(share: float) -> None:
    for keys, name in (
        ({"rope_parameters": {"partial_rotary_factor": share}}, "rope_parameters.partial_rotary_"),
        ({"rotary_pct": share}, "rotary_pct"),
        ({}, "rotary_pct"),  # the family's share does not fit these heads
    ):
        with pytest.raises(
            UnsupportedModelError, match=rf"'{name}.*= {share:g} .* must be an even"
        ):
            _rope(_hf(**keys), partial_keys=("rotary_pct",), partial=share)


def test_rotation_of_heads_of_odd_size_names_where_the_size_comes_from() -> None:
    with pytest.raises(
        UnsupportedModelError, match=r"'head_dim', or 'hidden_size' .* Test 7 values"
    ):
        attention_from(_hf(head_dim=7))


_LONG = {"rope_type": "longrope", "short_factor": [1.0, 1.5, 2, 3], "long_factor": [4, 5, 6, 7]}


@pytest.mark.parametrize(
    ("more", "keys", "temperature"),
    [
        ({"original_max_position_embeddings": 512}, {}, math.sqrt(1 + math.log(4) / math.log(512))),
        ({}, {"original_max_position_embeddings": 512}, math.sqrt(1 + math.log(4, 512))),
        ({"original_max_position_embeddings": 512, "factor": 32.0}, {},
         math.sqrt(1 + math.log(32) / math.log(512))),
        ({"attention_factor": 1.75, "original_max_position_embeddings": 512}, {}, 1.75),
        ({}, {}, 1.0),
    ],
    ids=["ratio", "top-level-length", "factor", "given", "not-longer"],
)  # fmt: skip
def test_longrope(more: dict[str, Any], keys: dict[str, Any], temperature: float) -> None:
    scaling = _rope(_hf(rope_parameters=_LONG | more, **keys)).scaling
    assert isinstance(scaling, LongRopeScaling)
    assert (scaling.short, scaling.long) == ((1.0, 1.5, 2, 3), (4, 5, 6, 7))
    assert scaling.original_max_positions == (512 if more or keys else 2048)
    assert scaling.short_attention_factor == pytest.approx(temperature)
    assert scaling.long_attention_factor == pytest.approx(temperature)


@pytest.mark.parametrize("beside", [False, True])
def test_a_trained_length_means_nothing_to_dynamic_scaling(beside: bool) -> None:
    length = {"original_max_position_embeddings": 512}
    dynamic = {"rope_type": "dynamic", "factor": 4.0}
    params, keys = (dynamic, length) if beside else (dynamic | length, {})
    scaling = _rope(_hf(rope_parameters=params, **keys)).scaling
    assert scaling == DynamicScaling(factor=4.0, original_max_positions=2048)


def test_temperatures_of_phi_moe_mean_nothing_in_other_families() -> None:
    params = {**_LONG, "short_mscale": 1.25, "long_mscale": 1.5}
    assert _rope(_hf(rope_scaling=params)) == _rope(_hf(rope_scaling=_LONG))


def test_longrope_needs_a_factor_for_every_pair() -> None:
    with pytest.raises(UnsupportedModelError, match=r"4 short and 3 long factors.*needs 4 of each"):
        _rope(_hf(rope_parameters=_LONG | {"long_factor": [1, 2, 3]}))


_LINEAR = {"rope_type": "linear", "factor": 8.0}
_SCALED = RopeSpec(dim=8, theta=1e6, scaling=LinearScaling(factor=8.0))
_LOCAL = RopeSpec(dim=8, theta=1e4)


@pytest.mark.parametrize(
    "keys",
    [
        {
            "rope_parameters": {
                "full_attention": {**_LINEAR, "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
        {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": _LINEAR},
    ],
    ids=["by-layer-type", "older"],
)
def test_rotation_by_layer_type(keys: dict[str, Any]) -> None:
    hf = _hf(**keys)
    assert _rope(hf, layer_type="full_attention") == _SCALED
    local = {"theta_keys": ("rope_local_base_freq",), "is_scaled": False}
    assert _rope(hf, layer_type="sliding_attention", **local) == _LOCAL
    hf.int("hidden_size"), hf.int("num_attention_heads")
    hf.check_unread()


def test_no_number_of_kv_heads_is_that_of_all_heads() -> None:
    assert attention_from(_hf(), num_kv_heads=2).num_kv_heads == 2
    assert attention_from(_hf(num_key_value_heads=None), num_kv_heads=2).num_kv_heads == 4


def test_a_model_without_layers_is_refused() -> None:
    hf = _hf(num_hidden_layers=0, intermediate_size=8, vocab_size=9)
    with pytest.raises(UnsupportedModelError, match="'num_hidden_layers' = 0 of Test must be at"):
        llama(hf)


def test_alibi_needs_heads() -> None:
    with pytest.raises(UnsupportedModelError, match="has 0 attention heads"):
        alibi(0)


def test_attention_without_rotation() -> None:
    hf = _hf()
    spec = attention_with(hf, AlibiSpec(slopes=(1.0,) * 4), bias=True)
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim) == (4, 4, 8)
    assert spec.scale == 8**-0.5
    assert spec.qkv_bias and spec.out_bias


def test_attention_options_override_what_follows_from_sizes() -> None:
    hf = _hf(head_dim=6, num_key_value_heads=2)
    spec = attention_from(hf, scale=0.125, soft_cap=30.0, window=9, theta=7.0)
    assert (spec.num_kv_heads, spec.head_dim, spec.scale) == (2, 6, 0.125)
    assert (spec.soft_cap, spec.window) == (30.0, 9)
    assert spec.positions == RopeSpec(dim=6, theta=7.0)
