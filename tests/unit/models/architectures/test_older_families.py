"""What the plans of older families make of published configs, of silence, and of what they lack.

Their logits are compared in tests/models: test_goldens.py, test_original_layouts.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.layers.spec import (
    AlibiSpec,
    AttentionSpec,
    DynamicScaling,
    GatedMLPSpec,
    LinearScaling,
    QwenScaling,
    RopeSpec,
)
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec

Config = dict[str, Any]

LLAMA_KEYS: Config = {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "num_attention_heads": 8,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 320,
}
GPT2_XL: Config = {
    "activation_function": "gelu_new",
    "attn_pdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "n_ctx": 1024,
    "n_embd": 1600,
    "n_head": 25,
    "n_layer": 48,
    "n_positions": 1024,
    "n_special": 0,
    "output_past": True,
    "predict_special_tokens": True,
    "summary_first_dropout": 0.1,
    "summary_type": "cls_index",
    "vocab_size": 50257,
}
OPT_13B: Config = {
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "attention_dropout": 0.0,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "ffn_dim": 20480,
    "hidden_size": 5120,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "output_projection": True,
    "pad_token_id": 1,
    "prefix": "</s>",
    "use_cache": True,
    "vocab_size": 50272,
    "word_embed_proj_dim": 5120,
}
BAICHUAN2_13B: Config = {
    **LLAMA_KEYS,
    "_from_model_config": True,
    "gradient_checkpointing": [False],
    "model_max_length": 4096,
    "tokenizer_class": "BaichuanTokenizer",
    "vocab_size": 125696,
}
CHATGLM3: Config = {
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "apply_query_key_layer_scaling": True,
    "apply_residual_connection_post_layernorm": False,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "ffn_hidden_size": 13696,
    "fp32_residual_connection": False,
    "hidden_size": 4096,
    "kv_channels": 128,
    "layernorm_epsilon": 1e-05,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 28,
    "original_rope": True,
    "padded_vocab_size": 65024,
    "post_layer_norm": True,
    "pre_seq_len": None,
    "prefix_projection": False,
    "quantization_bit": 0,
    "rmsnorm": True,
    "seq_length": 8192,
    "tie_word_embeddings": False,
    "vocab_size": 65024,
}
FIRST_QWEN: Config = {
    "activation": "swiglu",
    "apply_residual_connection_post_layernorm": False,
    "attn_pdrop": 0.0,
    "bf16": False,
    "bias_dropout_fusion": True,
    "embd_pdrop": 0.0,
    "ffn_hidden_size": 22016,
    "fp16": False,
    "kv_channels": 128,
    "layer_norm_epsilon": 1e-06,
    "n_embd": 4096,
    "n_head": 32,
    "n_layer": 32,
    "n_positions": 6144,
    "no_bias": True,
    "padded_vocab_size": 151936,
    "params_dtype": "torch.bfloat16",
    "pos_emb": "rotary",
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 2048,
    "tie_word_embeddings": False,
    "tokenizer_type": "QWenTokenizer",
    "use_flash_attn": True,
    "vocab_size": 151851,
}
QWEN: Config = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "seq_length": 8192,
    "vocab_size": 151936,
}
STORYWRITER: Config = {
    "attn_config": {
        "alibi": True,
        "alibi_bias_max": 16,
        "attn_impl": "torch",
        "attn_pdrop": 0,
        "attn_type": "multihead_attention",
        "attn_uses_sequence_id": False,
        "clip_qkv": 6,
        "prefix_lm": False,
        "qk_ln": False,
        "softmax_scale": None,
    },
    "d_model": 4096,
    "emb_pdrop": 0,
    "embedding_fraction": 1.0,
    "expansion_ratio": 4,
    "init_config": {"fan_mode": "fan_in", "name": "kaiming_normal_", "verbose": 0},
    "init_device": "cpu",
    "learned_pos_emb": True,
    "logit_scale": None,
    "max_seq_len": 65536,
    "n_heads": 32,
    "n_layers": 32,
    "no_bias": True,
    "norm_type": "low_precision_layernorm",
    "resid_pdrop": 0,
    "tokenizer_name": "EleutherAI/gpt-neox-20b",
    "vocab_size": 50432,
}
OLMO: Config = {
    "activation_type": "swiglu",
    "alibi": False,
    "alibi_bias_max": 8.0,
    "attention_layer_norm": False,
    "attention_layer_norm_with_affine": False,
    "bias_for_layer_norm": False,
    "block_group_size": 1,
    "block_type": "sequential",
    "clip_qkv": 8.0,
    "d_model": 4096,
    "embedding_size": 50304,
    "flash_attention": True,
    "include_bias": False,
    "init_fn": "mitchell",
    "layer_norm_type": "default",
    "layer_norm_with_affine": False,
    "max_sequence_length": 4096,
    "mlp_hidden_size": 22016,
    "mlp_ratio": 4,
    "n_heads": 32,
    "n_layers": 32,
    "precision": "amp_bf16",
    "rope": True,
    "rope_full_precision": True,
    "scale_logits": False,
    "vocab_size": 50280,
    "weight_tying": False,
}
JAIS: Config = {
    "activation_function": "swiglu",
    "n_embd": 64,
    "n_head": 4,
    "n_inner": 101,
    "n_layer": 2,
    "n_positions": 128,
    "position_embedding_type": "alibi",
    "vocab_size": 320,
}
BLOCK: Config = {  # as the newest of them spell it
    "attention": {
        "llama4": None,
        "n_heads_in_group": 4,
        "no_op": False,
        "num_sink_tokens": None,
        "replace_with_linear": False,
        "sparsify": None,
        "unshifted_sink": False,
        "use_prefill_window_in_sink_attention": False,
        "window_length": None,
    },
    "ffn": {
        "gated": True,
        "hidden_act": "silu",
        "intermediate_size": 48,
        "moe": None,
        "no_op": False,
        "replace_with_linear": False,
        "sparsify": None,
    },
}
NAS: Config = {
    **LLAMA_KEYS,
    "attention_bias": False,
    "block_configs": [BLOCK, BLOCK],
    "intermediate_size": None,
    "mlp_bias": False,
    "num_key_value_heads": None,
}


def _spec(architecture: str, config: Config, **changes: Any) -> DecoderSpec:
    return plan_of({**config, **changes}, architecture).spec


def _attention(spec: DecoderSpec) -> AttentionSpec:
    attention = spec.layers[0].attention
    assert isinstance(attention, AttentionSpec)
    return attention


def _rope(spec: DecoderSpec) -> RopeSpec:
    positions = _attention(spec).positions
    assert isinstance(positions, RopeSpec)
    return positions


def test_baichuan2_is_known_by_its_vocabulary_and_13b_by_a_missing_length() -> None:
    second = _spec("BaichuanForCausalLM", BAICHUAN2_13B)
    assert isinstance(_attention(second).positions, AlibiSpec)
    assert second.head.unit_rows
    first = _spec("BaichuanForCausalLM", BAICHUAN2_13B, vocab_size=64000)
    assert not first.head.unit_rows
    small = _spec("BaichuanForCausalLM", BAICHUAN2_13B, max_position_embeddings=4096)
    assert _rope(small).theta == 10000.0
    assert _rope(_spec("BaiChuanForCausalLM", BAICHUAN2_13B, vocab_size=64000)).dim == 8


def test_chatglm_rope_ratio_raises_the_base_but_in_chatglm2() -> None:
    longer = _spec("ChatGLMModel", CHATGLM3, rope_ratio=50, seq_length=32768)
    assert _rope(longer) == RopeSpec(dim=64, theta=500000.0, style="interleaved")
    second = _spec("ChatGLMModel", CHATGLM3, rope_ratio=16, _name_or_path="THUDM/chatglm2-6b-32k")
    assert _rope(second).theta == 10000.0
    assert _rope(second).scaling == LinearScaling(factor=16)
    assert _attention(longer).qkv_bias and not _attention(longer).out_bias


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({}, False),
        ({"rope_ratio": 1, "_name_or_path": "/models/mine"}, False),
        ({"rope_ratio": 16}, True),
        ({"rope_ratio": 16, "_name_or_path": "/models/mine"}, True),
        ({"rope_ratio": 16, "_name_or_path": "THUDM/chatglm2-6b-32k"}, False),
        ({"rope_ratio": 50, "_name_or_path": "THUDM/chatglm3-6b-32k"}, False),
        ({"rope_ratio": 500, "_name_or_path": "THUDM/glm-4-9b-chat"}, False),
    ],
)
def test_chatglm_says_what_it_takes_a_rope_ratio_for_where_no_name_tells(
    changes: Config, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    _spec("ChatGLMModel", CHATGLM3, **changes)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warns
    if warns:
        assert "rope_ratio = 16 is taken to raise the rotary base" in caplog.text
        assert """--hf-overrides '{"_name_or_path": "chatglm2-6b-32k"}'""" in caplog.text


def test_first_qwen_has_other_keys_and_both_extensions_off() -> None:
    spec = _spec("QWenLMHeadModel", FIRST_QWEN)
    assert spec.head.vocab_size == 151936
    assert isinstance(spec.layers[0].mlp, GatedMLPSpec)
    assert spec.layers[0].mlp.inner_size == 11008
    assert _rope(spec).scaling is None and _attention(spec).log_length is None


def test_qwen_switches_both_extensions_on_where_the_config_is_silent() -> None:
    spec = _spec("QWenLMHeadModel", QWEN)
    assert _rope(spec).scaling == QwenScaling(original_max_positions=8192)
    assert _attention(spec).log_length == 8192
    assert not spec.head.tied


def test_storywriter_has_steeper_slopes_and_bounds() -> None:
    spec = _spec("MPTForCausalLM", STORYWRITER)
    attention = _attention(spec)
    assert isinstance(attention.positions, AlibiSpec)
    assert attention.positions.slopes[-1] == 2.0**-16
    assert attention.clip == 6
    assert spec.embedding.positions is None
    assert spec.head.tied
    unclipped = _spec("MPTForCausalLM", STORYWRITER, attn_config=_attn_with(clip_qkv=0))
    assert _attention(unclipped).clip is None


def test_mpt_reads_an_epsilon_only_in_the_layout_of_transformers() -> None:
    changed = {**STORYWRITER, "layer_norm_epsilon": 0.01}
    for architecture, eps in (("MPTForCausalLM", 1e-5), ("MptForCausalLM", 0.01)):
        norm = _spec(architecture, changed).final_norm
        assert norm is not None and norm.eps == eps


def test_first_olmo_has_the_rows_of_its_embedding() -> None:
    spec = _spec("OLMoForCausalLM", OLMO)
    assert spec.head.vocab_size == 50304
    assert _attention(spec).clip == 8
    assert isinstance(spec.layers[0].mlp, GatedMLPSpec)
    assert spec.layers[0].mlp.inner_size == 11008
    assert _spec("OLMoForCausalLM", OLMO, embedding_size=None).head.vocab_size == 50280


def test_decilm_reads_its_own_keys_of_either_generation() -> None:
    counts = [4, 1]
    first = _spec(
        "DeciLMForCausalLM",
        LLAMA_KEYS,
        max_position_embeddings=8192,
        naive_attention_prefill=True,
        num_key_value_heads_per_layer=counts,
        rope_scaling={"factor": 2.0, "type": "dynamic"},
    )
    assert [layer.attention.num_kv_heads for layer in first.layers if layer.attention] == counts
    assert _rope(first).scaling == DynamicScaling(factor=2.0, original_max_positions=8192)
    assert _attention(_spec("DeciLMForCausalLM", NAS)).num_kv_heads == 2


def test_internlm_is_biased_and_rotates_by_10000_where_the_config_is_silent() -> None:
    spec = _spec("InternLMForCausalLM", LLAMA_KEYS)
    attention = _attention(spec)
    assert attention.qkv_bias and attention.out_bias
    assert _rope(spec).theta == 10000.0


def test_internlms_own_base_gives_way_to_an_override() -> None:
    config = {**LLAMA_KEYS, "rotary": {"base": 500.0, "type": "dynamic"}}
    assert _rope(_spec("InternLMForCausalLM", config)).theta == 500.0
    assert _rope(_spec("InternLMForCausalLM", {**config, "rope_theta": 800.0})).theta == 800.0


def _block_with(part: str, **keys: Any) -> list[Config]:
    return [{**BLOCK, part: {**BLOCK[part], **keys}}, BLOCK]


def _attn_with(**keys: Any) -> Config:
    return {**STORYWRITER["attn_config"], **keys}


@pytest.mark.parametrize(
    ("architecture", "config", "changes", "key"),
    [
        ("BaichuanForCausalLM", BAICHUAN2_13B, {"sliding_window": 4}, "sliding_window"),
        ("ChatGLMModel", CHATGLM3, {"pre_seq_len": 128}, "pre_seq_len"),
        ("ChatGLMModel", CHATGLM3, {"quantization_bit": 4}, "quantization_bit"),
        ("ChatGLMModel", CHATGLM3, {"original_rope": False}, "original_rope"),
        ("DeciLMForCausalLM", NAS, {"block_configs": [BLOCK]}, "block_configs"),
        (
            "DeciLMForCausalLM",
            NAS,
            {"block_configs": _block_with("attention", replace_with_linear=True)},
            "attention.replace_with_linear",
        ),
        (
            "DeciLMForCausalLM",
            NAS,
            {"block_configs": _block_with("attention", window_length=8)},
            "attention.window_length",
        ),
        ("DeciLMForCausalLM", NAS, {"block_configs": _block_with("ffn", gated=False)}, "ffn.gated"),
        ("InternLMForCausalLM", LLAMA_KEYS, {"rotary": {"type": "yarn"}}, "rotary.type"),
        ("JAISLMHeadModel", JAIS, {"alibi_scaling": {"type": "linear"}}, "alibi_scaling"),
        ("JAISLMHeadModel", JAIS, {"position_embedding_type": "rope"}, "position_embedding_type"),
        ("MPTForCausalLM", STORYWRITER, {"attn_config": _attn_with(prefix_lm=True)}, "prefix_lm"),
        ("MPTForCausalLM", STORYWRITER, {"attn_config": _attn_with(rope=True)}, "attn_config.rope"),
        ("MPTForCausalLM", STORYWRITER, {"norm_type": "rmsnorm"}, "norm_type"),
        ("MPTForCausalLM", STORYWRITER, {"ffn_config": {"ffn_type": "mptglu"}}, "ffn_type"),
        ("OLMoForCausalLM", OLMO, {"alibi": True, "rope": False}, "alibi"),
        ("OLMoForCausalLM", OLMO, {"block_type": "llama"}, "block_type"),
        ("OLMoForCausalLM", OLMO, {"layer_norm_type": "rms"}, "layer_norm_type"),
        ("OrionForCausalLM", LLAMA_KEYS, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("QWenLMHeadModel", QWEN, {"activation": "gelu"}, "activation"),
        ("QWenLMHeadModel", QWEN, {"use_cache_quantization": True}, "use_cache_quantization"),
        ("YiForCausalLM", LLAMA_KEYS, {"attention_bias": True}, "attention_bias"),
    ],
)
def test_what_a_family_lacks_is_refused_by_name(
    architecture: str, config: Config, changes: Config, key: str
) -> None:
    plan_of(config, architecture)
    with pytest.raises(UnsupportedModelError, match=key):
        plan_of({**config, **changes}, architecture)


@pytest.mark.parametrize(
    ("architecture", "config"), [("GPT2LMHeadModel", GPT2_XL), ("OPTForCausalLM", OPT_13B)]
)
def test_keys_of_old_files_that_say_what_always_holds(architecture: str, config: Config) -> None:
    old = {"output_past", "predict_special_tokens", "output_projection"}
    plain = {key: value for key, value in config.items() if key not in old}
    assert plan_of(config, architecture) == plan_of(plain, architecture)


def test_what_galacticas_files_say_of_opt() -> None:
    said = {"learned_embeddings": True, "scale_embeddings": False}
    assert plan_of({**OPT_13B, **said}, "OPTForCausalLM") == plan_of(OPT_13B, "OPTForCausalLM")
    for key in said:
        with pytest.raises(UnsupportedModelError, match=f"'{key}' = {not said[key]} is not"):
            plan_of({**OPT_13B, key: not said[key]}, "OPTForCausalLM")
