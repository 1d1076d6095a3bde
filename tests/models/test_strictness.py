"""A config with another value under any key makes another model, or is refused by name.

Whatever is neither must be known to change nothing: in general (`INERT_KEYS`) or for the family,
which is said here once more, so that no key is dropped by accident.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.models.inert_keys import INERT_KEYS
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec
from tests.models.configs import PARITY_ROWS
from tests.models.row import ParityRow

_MASKS = {"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"}
_OFF = {"use_sliding_window"}  # the row has no window to switch on
# Per architecture, keys that make no other model of its row.
_WITHOUT_EFFECT: dict[str, set[str]] = {
    "BloomForCausalLM": {"slow_but_exact"},
    "DbrxForCausalLM": {"num_key_value_heads"},  # the inner attn_config's counts
    "DeepseekV2ForCausalLM": {"head_dim", "num_key_value_heads", "qk_head_dim"},  # follow from MLA
    "DeepseekV3ForCausalLM": {
        "head_dim",
        "num_key_value_heads",
        "num_nextn_predict_layers",  # layers of a drafter
        "qk_head_dim",
    },
    "FalconForCausalLM": {"num_kv_heads"},  # with multi_query
    "GPT2LMHeadModel": {"reorder_and_upcast_attn"},
    "GPTBigCodeForCausalLM": _MASKS | {"multi_query"},  # num_key_value_heads says the same
    "GPTNeoXForCausalLM": {"is_decoder"},
    "MptForCausalLM": {"embedding_fraction", "learned_pos_emb", "no_bias"},
    "Phi3ForCausalLM": {"original_max_position_embeddings"},  # without scaling
    "PhiMoEForCausalLM": {"input_jitter_noise", "original_max_position_embeddings"},
    "PhimoeForCausalLM": {"input_jitter_noise"},  # of training
    "Qwen2ForCausalLM": _OFF | {"max_window_layers"},
    "Qwen2MoeForCausalLM": _OFF
    | {"intermediate_size", "max_window_layers", "mlp_only_layers", "sliding_window"},
    "Qwen3ForCausalLM": _OFF | {"max_window_layers"},
    "Qwen3MoeForCausalLM": _OFF | {"intermediate_size", "mlp_only_layers"},
    "SmolLM3ForCausalLM": _OFF | {"no_rope_layer_interval"},  # of no_rope_layers, if absent
}
_ROWS = {row.architecture: row for row in reversed(PARITY_ROWS)}  # the first of each


def _config(row: ParityRow) -> dict[str, Any]:
    config = row.make_config()
    config.architectures = [row.architecture]
    data: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return data


def _others(value: Any) -> list[Any]:
    """Other values for a key that has this one; several where nothing tells its type."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [2 * value + 1]
    if isinstance(value, float):
        return [2 * value + 0.125]
    if isinstance(value, str):
        return ["mish"]
    if isinstance(value, dict):
        return [value | {"mish": 1.5}]
    return [["mish"]] if isinstance(value, list) else [3, True, "mish", 0.5]


def _spec_or_refusal(config: dict[str, Any], architecture: str) -> DecoderSpec | str:
    try:
        return plan_of(config, architecture).spec
    except UnsupportedModelError as error:
        return str(error)


@pytest.mark.parametrize("architecture", sorted(_ROWS))
def test_every_key_counts(architecture: str) -> None:
    config = _config(_ROWS[architecture])
    spec = plan_of(config, architecture).spec
    without_effect = {
        key
        for key, value in config.items()
        if not any(fnmatchcase(key, pattern) for pattern in INERT_KEYS)
        and all(
            _spec_or_refusal(config | {key: other}, architecture) == spec
            for other in _others(value)
        )
    }
    assert without_effect == _WITHOUT_EFFECT.get(architecture, set())


@pytest.mark.parametrize("architecture", sorted(_ROWS))
def test_unknown_key_is_refused_by_name(architecture: str) -> None:
    config = _config(_ROWS[architecture])
    for key, value in (("residual_scale_v2", 0.5), ("norm_placement", "post")):
        refusal = _spec_or_refusal(config | {key: value}, architecture)
        assert isinstance(refusal, str)
        assert f"'{key}' = {value!r} changes behaviour" in refusal


@pytest.mark.parametrize("architecture", sorted(_ROWS))
def test_unknown_activation_is_refused_by_name(architecture: str) -> None:
    config = _config(_ROWS[architecture])
    keys = {"hidden_act", "hidden_activation", "activation_function", "activation"} & config.keys()
    for key in keys:
        refusal = _spec_or_refusal(config | {key: "mish"}, architecture)
        assert isinstance(refusal, str)
        assert f"{key!r} = 'mish'" in refusal
