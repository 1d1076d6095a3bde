"""Configs of the parallel-block families as their makers published them, with every key."""

from __future__ import annotations

from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.layers.spec import AttentionSpec, GatedMLPSpec, PlainMLPSpec, RopeSpec
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec, LayerSpec

_GPT_J_6B = {
    "activation_function": "gelu_new", "architectures": ["GPTJForCausalLM"], "attn_pdrop": 0.0,
    "bos_token_id": 50256, "embd_pdrop": 0.0, "eos_token_id": 50256,
    "gradient_checkpointing": False, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
    "model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_inner": None, "n_layer": 28,
    "n_positions": 2048, "resid_pdrop": 0.0, "rotary": True, "rotary_dim": 64,
    "scale_attn_weights": True, "summary_activation": None, "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True, "summary_type": "cls_index", "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "tie_word_embeddings": False, "tokenizer_class": "GPT2Tokenizer",
    "transformers_version": "4.18.0.dev0", "use_cache": True, "vocab_size": 50400,
}  # fmt: skip
_GPT_NEOX_20B = {
    "architectures": ["GPTNeoXForCausalLM"], "attention_probs_dropout_prob": 0, "bos_token_id": 0,
    "eos_token_id": 0, "hidden_act": "gelu_fast", "hidden_dropout_prob": 0, "hidden_size": 6144,
    "initializer_range": 0.02, "intermediate_size": 24576, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "gpt_neox", "num_attention_heads": 64,
    "num_hidden_layers": 44, "rotary_emb_base": 10000, "rotary_pct": 0.25,
    "tie_word_embeddings": False, "torch_dtype": "float16", "use_cache": True,
    "use_parallel_residual": True, "vocab_size": 50432,
}  # fmt: skip
_FALCON_7B = {
    "alibi": False, "apply_residual_connection_post_layernorm": False,
    "architectures": ["FalconForCausalLM"], "attention_dropout": 0.0, "bias": False,
    "bos_token_id": 11, "eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 4544,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "falcon",
    "multi_query": True, "new_decoder_architecture": False, "num_attention_heads": 71,
    "num_hidden_layers": 32, "num_kv_heads": 71, "parallel_attn": True, "torch_dtype": "bfloat16",
    "use_cache": True, "vocab_size": 65024,
}  # fmt: skip
_FALCON_40B_AT_FIRST = {
    "alibi": False, "apply_residual_connection_post_layernorm": False,
    "architectures": ["RWForCausalLM"], "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_RW.RWConfig"}, "bias": False, "bos_token_id": 11,
    "eos_token_id": 11, "hidden_dropout": 0.0, "hidden_size": 8192, "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05, "model_type": "RefinedWeb", "n_head": 128, "n_head_kv": 8,
    "n_layer": 60, "parallel_attn": True, "torch_dtype": "bfloat16", "use_cache": True,
    "vocab_size": 65024,
}  # fmt: skip
_FALCON_11B = {
    "activation": "gelu", "alibi": False, "architectures": ["FalconForCausalLM"],
    "attention_dropout": 0.0, "bias": False, "bos_token_id": 11, "eos_token_id": 11,
    "ff_factor": 4, "ffn_hidden_size": 16384, "hidden_dropout": 0.0, "hidden_size": 4096,
    "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "max_position_embeddings": 8192,
    "model_type": "falcon", "new_decoder_architecture": True, "num_attention_heads": 32,
    "num_hidden_layers": 60, "num_kv_heads": 8, "num_ln_in_parallel_attn": 1,
    "parallel_attn": True, "rope_scaling": None, "rope_theta": 500042.0,
    "tie_word_embeddings": False, "vocab_size": 65024,
}  # fmt: skip
_PHI_2 = {
    "architectures": ["PhiForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 50256,
    "embd_pdrop": 0.0, "eos_token_id": 50256, "hidden_act": "gelu_new", "hidden_size": 2560,
    "initializer_range": 0.02, "intermediate_size": 10240, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048, "model_type": "phi", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 32, "partial_rotary_factor": 0.4,
    "qk_layernorm": False, "resid_pdrop": 0.1, "rope_scaling": None, "rope_theta": 10000.0,
    "tie_word_embeddings": False, "use_cache": True, "vocab_size": 51200,
}  # fmt: skip
_COMMAND_R_PLUS = {
    "architectures": ["CohereForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 5, "eos_token_id": 255001, "hidden_act": "silu", "hidden_size": 12288,
    "initializer_range": 0.02, "intermediate_size": 33792, "layer_norm_eps": 1e-05,
    "logit_scale": 0.8333333333333334, "max_position_embeddings": 131072, "model_type": "cohere",
    "num_attention_heads": 96, "num_hidden_layers": 64, "num_key_value_heads": 8,
    "pad_token_id": 0, "rope_theta": 75000000.0, "torch_dtype": "float16", "use_cache": True,
    "use_qk_norm": True, "vocab_size": 256000,
}  # fmt: skip
_COMMAND_R7B = {
    "architectures": ["Cohere2ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
    "bos_token_id": 5, "cache_implementation": "hybrid", "eos_token_id": 255001, "head_dim": 128,
    "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
    "intermediate_size": 14336, "layer_norm_eps": 1e-05, "layer_switch": 4, "logit_scale": 0.25,
    "max_position_embeddings": 8192, "model_type": "cohere2", "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8,
    "order_of_interleaved_layers": "local_attn_first", "pad_token_id": 0,
    "position_embedding_type": "rope_gptj", "rope_scaling": None, "rope_theta": 50000,
    "rotary_pct": 1.0, "sliding_window": 4096, "sliding_window_pattern": 4,
    "use_embedding_sharing": True, "use_gated_activation": True, "use_parallel_block": True,
    "use_parallel_embedding": True, "vocab_size": 256000,
}  # fmt: skip
_STABLELM_12B = {
    "architectures": ["StableLmForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 100257,
    "eos_token_id": 100257, "hidden_act": "silu", "hidden_dropout": 0.0, "hidden_size": 5120,
    "initializer_range": 0.02, "intermediate_size": 13824, "layer_norm_eps": 1e-05,
    "max_position_embeddings": 4096, "model_type": "stablelm", "num_attention_heads": 32,
    "num_hidden_layers": 40, "num_key_value_heads": 8, "partial_rotary_factor": 0.25,
    "qk_layernorm": True, "rope_theta": 10000, "tie_word_embeddings": False, "use_cache": True,
    "use_parallel_residual": True, "use_qkv_bias": False, "vocab_size": 100352,
}  # fmt: skip


def _spec(config: dict[str, Any]) -> DecoderSpec:
    return plan_of(config, config["architectures"][0]).spec


def _first(spec: DecoderSpec) -> tuple[LayerSpec, AttentionSpec]:
    layer = spec.layers[0]
    assert isinstance(layer.attention, AttentionSpec)
    return layer, layer.attention


def test_gpt_j() -> None:
    spec = _spec(_GPT_J_6B)
    layer, attention = _first(spec)
    assert (layer.block, len(layer.norms), len(spec.layers)) == ("parallel", 1, 28)
    assert attention.positions == RopeSpec(dim=64, theta=10000.0, style="interleaved")
    assert isinstance(layer.mlp, PlainMLPSpec)
    assert (layer.mlp.inner_size, layer.mlp.activation) == (16384, "gelu_tanh")
    assert spec.head.bias and not spec.head.tied
    assert round(spec.num_parameters / 1e9, 2) == 6.05


def test_gpt_neox() -> None:
    spec = _spec(_GPT_NEOX_20B)
    layer, attention = _first(spec)
    assert (layer.block, len(layer.norms)) == ("parallel", 2)
    assert attention.positions == RopeSpec(dim=24, theta=10000.0)
    assert round(spec.num_parameters / 1e9, 2) == 20.55


@pytest.mark.parametrize(
    ("config", "kv_heads", "num_norms", "theta", "billions"),
    [(_FALCON_7B, 1, 1, 10000.0, 6.92), (_FALCON_40B_AT_FIRST, 8, 2, 10000.0, 41.30),
     (_FALCON_11B, 8, 1, 500042.0, 11.10)],
    ids=["7b", "40b-at-first", "11b"],
)  # fmt: skip
def test_falcon(
    config: dict[str, Any], kv_heads: int, num_norms: int, theta: float, billions: float
) -> None:
    spec = _spec(config)
    layer, attention = _first(spec)
    assert (layer.block, len(layer.norms)) == ("parallel", num_norms)
    assert (attention.num_kv_heads, attention.head_dim) == (kv_heads, 128 if theta > 1e5 else 64)
    assert attention.positions == RopeSpec(dim=attention.head_dim, theta=theta)
    assert spec.head.tied == config.get("tie_word_embeddings", True)
    assert round(spec.num_parameters / 1e9, 2) == billions


def test_phi_2_rotates_two_fifths_of_a_head() -> None:
    spec = _spec(_PHI_2)
    assert _first(spec)[1].positions == RopeSpec(dim=32, theta=10000.0)
    assert round(spec.num_parameters / 1e9, 2) == 2.78


def test_command_r_plus() -> None:
    spec = _spec(_COMMAND_R_PLUS)
    layer, attention = _first(spec)
    assert isinstance(layer.mlp, GatedMLPSpec)
    assert attention.positions == RopeSpec(dim=128, theta=75e6, style="interleaved")
    assert attention.parameters()["q_norm.weight"] == (96, 128)
    assert attention.parameters()["k_norm.weight"] == (8, 128)
    assert (spec.head.tied, spec.head.scale) == (True, 0.8333333333333334)
    assert round(spec.num_parameters / 1e9, 1) == 103.8


def test_command_r7b_has_a_window_and_positions_in_three_of_four_layers() -> None:
    spec = _spec(_COMMAND_R7B)
    windowed = [layer.attention is not None and layer.attention.window == 4096
                for layer in spec.layers]  # fmt: skip
    assert windowed == [True, True, True, False] * 8
    rotated = [layer.attention is not None and layer.attention.positions is not None
               for layer in spec.layers]  # fmt: skip
    assert rotated == windowed


def test_stablelm_12b() -> None:
    spec = _spec(_STABLELM_12B)
    layer, attention = _first(spec)
    assert (layer.block, len(layer.norms)) == ("parallel", 1)
    assert attention.parameters()["q_norm.weight"] == (32, 160)
    assert attention.positions == RopeSpec(dim=40, theta=10000.0)
    assert round(spec.num_parameters / 1e9, 2) == 12.14


@pytest.mark.parametrize(
    ("config", "key", "value"),
    [
        (_GPT_J_6B, "rotary", False),
        (_GPT_J_6B, "scale_attn_weights", False),
        (_GPT_J_6B, "rotary_dim", 63),
        (_GPT_J_6B, "rotary_dim", 512),
        (_FALCON_7B, "apply_residual_connection_post_layernorm", True),
        (_FALCON_7B, "activation", "mish"),
        (_GPT_NEOX_20B, "num_key_value_heads", 8),
        (_COMMAND_R7B, "use_gated_activation", False),
        (_COMMAND_R7B, "order_of_interleaved_layers", "global_attn_first"),
        (_COMMAND_R7B, "rotary_pct", 0.5),
        (_STABLELM_12B, "rotary_scaling_factor", 2.0),
    ],
)
def test_other_behaviour_is_refused_by_name(config: dict[str, Any], key: str, value: Any) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{key}' = {value!r}"):
        _spec(config | {key: value})
