"""A config with another value under any key makes another model, or is refused by name.

Whatever is neither must be known to change nothing: in general (`INERT_KEYS`) or for the family,
which is said here once more, so that no key is dropped by accident.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.models.inert_keys import INERT_KEYS
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec
from tests.models.configs import PARITY_ROWS
from tests.models.row import ParityRow

_ACTIVATION_KEYS = {
    "activation",
    "activation_function",
    "activation_type",
    "ffn_config.ffn_act_fn.name",
    "hidden_act",
    "hidden_activation",
}
_MASKS = {"attention_softmax_in_fp32", "scale_attention_softmax_in_fp32"}
_OFF = {"use_sliding_window"}  # the row has no window to switch on
# Per architecture or golden, keys that make no other model of it.
_WITHOUT_EFFECT: dict[str, set[str]] = {
    "BloomForCausalLM": {"slow_but_exact"},
    "DbrxForCausalLM": {
        "num_key_value_heads",  # the inner attn_config's counts
        "attn_config.rope_theta",  # where rope_parameters have one
        "ffn_config.hidden_size",
        "ffn_config.moe_jitter_eps",
        "ffn_config.moe_loss_weight",
    },
    "DeepseekV2ForCausalLM": {"num_key_value_heads", "qk_head_dim"},  # follow from MLA
    "DeepseekV3ForCausalLM": {
        "num_key_value_heads",
        "num_nextn_predict_layers",  # layers of a drafter
        "qk_head_dim",
    },
    "FalconForCausalLM": {"num_kv_heads"},  # with multi_query
    "GPT2LMHeadModel": {"reorder_and_upcast_attn"},
    "GPTBigCodeForCausalLM": _MASKS,
    "GPTNeoXForCausalLM": {"is_decoder"},
    "Gemma3ForCausalLM": {"_sliding_window_pattern"},  # of layer_types, if absent
    "MptForCausalLM": {
        "attn_config.alibi",  # the class has no other positions
        "attn_config.attn_impl",
        "embedding_fraction",
        "learned_pos_emb",
        "no_bias",
    },
    "Phi3ForCausalLM": {"original_max_position_embeddings"},  # without scaling
    "PhiMoEForCausalLM": {"input_jitter_noise"},
    "PhimoeForCausalLM": {"input_jitter_noise"},  # of training
    "Qwen2ForCausalLM": _OFF | {"max_window_layers"},
    "Qwen2MoeForCausalLM": _OFF
    | {"intermediate_size", "max_window_layers", "mlp_only_layers", "sliding_window"},
    "Qwen3ForCausalLM": _OFF | {"max_window_layers"},
    "Qwen3MoeForCausalLM": _OFF | {"intermediate_size", "mlp_only_layers"},
    "SmolLM3ForCausalLM": _OFF | {"no_rope_layer_interval"},  # of no_rope_layers, if absent
    "chatglm": {
        "apply_query_key_layer_scaling",  # down and up again
        "attention_softmax_in_fp32",
        "bias_dropout_fusion",
        "fp32_residual_connection",
    },
    "decilm_nas": {"intermediate_size"},  # each block has its own
    "jais": {"reorder_and_upcast_attn"},
    "mpt": {"attn_config.attn_impl", "embedding_fraction", "learned_pos_emb"},  # with ALiBi
    "olmo": {
        "alibi_bias_max",  # without ALiBi
        "attention_layer_norm_with_affine",  # without those norms
        "block_group_size",
        "flash_attention",
        "mlp_ratio",  # beside mlp_hidden_size
        "precision",
        "rope_full_precision",
        "vocab_size",  # beside embedding_size
    },
    "qwen": {"bf16", "fp16", "fp32", "onnx_safe", "scale_attn_weights"},
    "rw_falcon40b": {"parallel_attn"},  # follows from the model type
    "xverse": {"max_tokenizer_truncation"},
}


def _config(row: ParityRow) -> dict[str, Any]:
    config = row.make_config()
    config.architectures = [row.architecture]
    data: dict[str, Any] = json.loads(config.to_json_string(use_diff=False))
    return data


# Architecture, or golden of one that transformers has no class for -> a config of it.
_CONFIGS: dict[str, dict[str, Any]] = {
    **{row.architecture: _config(row) for row in reversed(PARITY_ROWS)},  # the first of each
    **{
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(Path(__file__).parent.glob("goldens/*/config.json"))
    },
}


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


def _keys(config: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """All keys, those of nested objects below their own."""
    for key, value in config.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from _keys(value, (*path, key))


def _with(config: dict[str, Any], path: tuple[str, ...], change: Callable[[Any], Any]) -> Any:
    key, *rest = path
    value = config[key]
    return config | {key: _with(value, tuple(rest), change) if rest else change(value)}


def _spec_or_refusal(config: dict[str, Any]) -> DecoderSpec | str:
    try:
        return plan_of(config, config["architectures"][0]).spec
    except UnsupportedModelError as error:
        return str(error)


def _value(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        config = config[key]
    return config


def _is_inert(path: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) for key in path for pattern in INERT_KEYS)


@pytest.mark.parametrize("name", sorted(_CONFIGS))
def test_every_key_counts(name: str) -> None:
    config = _CONFIGS[name]
    spec = _spec_or_refusal(config)
    assert isinstance(spec, DecoderSpec)
    without_effect = {
        ".".join(path)
        for path in _keys(config)
        if not _is_inert(path)
        and all(
            _spec_or_refusal(_with(config, path, lambda _, other=other: other)) == spec
            for other in _others(_value(config, path))
        )
    }
    assert without_effect == _WITHOUT_EFFECT.get(name, set())


@pytest.mark.parametrize("name", sorted(_CONFIGS))
def test_unknown_key_is_refused_by_name(name: str) -> None:
    for key, value in (("residual_scale_v2", 0.5), ("norm_placement", "post")):
        refusal = _spec_or_refusal(_CONFIGS[name] | {key: value})
        assert isinstance(refusal, str)
        assert f"'{key}' = {value!r} changes behaviour" in refusal


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(name, path, id=f"{name}-{'.'.join(path)}")
        for name in sorted(_CONFIGS)
        for path in _keys(_CONFIGS[name])
        if ".".join(path) in _ACTIVATION_KEYS
    ],
)
def test_unknown_activation_is_refused_by_name(name: str, path: tuple[str, ...]) -> None:
    refusal = _spec_or_refusal(_with(_CONFIGS[name], path, lambda _: "mish"))
    assert isinstance(refusal, str)
    assert f"{'.'.join(path)}' = 'mish'" in refusal
