"""Families with one MLP a layer and parts of their own."""

from __future__ import annotations

from typing import Any

import transformers

from tests.models.row import SMALL, VOCAB_SIZE, ParityRow, parity_row

_GPT = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
_PAD = {"pad_token_id": 0}  # some classes want it inside the vocabulary
_HEADS16 = {**SMALL, **_PAD, "head_dim": 16}
_OPT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def _bloom(variant: str, **fields: Any) -> ParityRow:
    sizes = {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "n_layer": 2, "n_head": 4}
    return parity_row("BloomForCausalLM", variant, transformers.BloomConfig, **{**sizes, **fields})


def _family(architecture: str, config: Any, base: dict[str, Any]) -> Any:
    def row(variant: str, **fields: Any) -> ParityRow:
        return parity_row(architecture, variant, config, **{**base, **fields})

    return row


_bigcode = _family("GPTBigCodeForCausalLM", transformers.GPTBigCodeConfig, _GPT)
_olmo = _family("OlmoForCausalLM", transformers.OlmoConfig, {**SMALL, **_PAD})
_olmo2 = _family("Olmo2ForCausalLM", transformers.Olmo2Config, {**SMALL, **_PAD})
_opt = _family("OPTForCausalLM", transformers.OPTConfig, _OPT)
_phi3 = _family("Phi3ForCausalLM", transformers.Phi3Config, {**SMALL, **_PAD})
_starcoder2 = _family("Starcoder2ForCausalLM", transformers.Starcoder2Config, SMALL)
_glm = _family("GlmForCausalLM", transformers.GlmConfig, _HEADS16)
_glm4 = _family("Glm4ForCausalLM", transformers.Glm4Config, _HEADS16)
_gemma2 = _family("Gemma2ForCausalLM", transformers.Gemma2Config, _HEADS16)
_gemma3 = _family("Gemma3ForCausalLM", transformers.Gemma3TextConfig, _HEADS16)
_granite = _family("GraniteForCausalLM", transformers.GraniteConfig, SMALL)
_nemotron = _family("NemotronForCausalLM", transformers.NemotronConfig, SMALL)
_smollm3 = _family("SmolLM3ForCausalLM", transformers.SmolLM3Config, {**SMALL, **_PAD})
_mpt = _family(
    "MptForCausalLM",
    transformers.MptConfig,
    {
        "vocab_size": VOCAB_SIZE,
        "d_model": 32,
        "n_layers": 2,
        "n_heads": 4,
        "max_seq_len": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
)


def _longrope(length: int, **fields: Any) -> dict[str, Any]:
    """Longrope over a trained length; 4 pairs a head."""
    return {
        "original_max_position_embeddings": length,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.1, 1.3, 1.6],
            "long_factor": [1.2, 2.0, 3.0, 4.5],
            "original_max_position_embeddings": length,
            **fields,
        },
    }


_LOCAL = {"rope_type": "default", "rope_theta": 100.0}

ROWS: tuple[ParityRow, ...] = (
    _bloom("plain"),
    _bloom("normed-residual", apply_residual_connection_post_layernorm=True),
    _bloom("heads-not-a-power", hidden_size=36, n_head=6, layer_norm_epsilon=1e-3),
    _bigcode("one-kv-head"),
    _bigcode("all-heads", multi_query=False, n_inner=40, activation_function="gelu"),
    _bigcode("unscaled", scale_attn_weights=False, tie_word_embeddings=False),
    _olmo("plain"),
    _olmo("clip-tied", clip_qkv=0.3, tie_word_embeddings=True, num_key_value_heads=4),
    _olmo("bias", attention_bias=True),
    _olmo2("plain"),
    _olmo2("all-heads", num_key_value_heads=4, attention_bias=True, rms_norm_eps=1e-3),
    _opt("plain"),
    _opt("post-norm-projected", do_layer_norm_before=False, word_embed_proj_dim=20),
    _opt("no-final-norm", _remove_final_layer_norm=True, activation_function="gelu"),
    _opt("no-bias", enable_bias=False, layer_norm_elementwise_affine=False),
    _phi3("plain"),
    _phi3("window", sliding_window=7, num_key_value_heads=4),
    _phi3("partial", rope_parameters={"rope_type": "default", "rope_theta": 1e4,
                                      "partial_rotary_factor": 0.5}),
    _phi3("short-factors", **_longrope(128)),
    _starcoder2("plain"),
    _starcoder2("window-no-bias", sliding_window=6, use_bias=False, tie_word_embeddings=False),
    _glm("plain"),
    _glm("no-bias", attention_bias=False, num_key_value_heads=4, tie_word_embeddings=True),
    _glm4("plain"),
    _glm4("no-bias", attention_bias=False, num_key_value_heads=1),
    _gemma2("plain", sliding_window=8),
    _gemma2("no-caps", attn_logit_softcapping=None, final_logit_softcapping=None,
            sliding_window=200),
    _gemma2("sharp-caps", attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
            query_pre_attn_scalar=24, num_hidden_layers=3, sliding_window=5),
    _gemma3("plain", sliding_window=8, num_hidden_layers=6),
    _gemma3("types-and-ropes", sliding_window=5, num_hidden_layers=3, query_pre_attn_scalar=40,
            layer_types=["full_attention", "sliding_attention", "full_attention"],
            rope_parameters={"sliding_attention": _LOCAL,
                             "full_attention": {"rope_type": "linear", "factor": 4.0,
                                                "rope_theta": 1e4}}),
    _gemma3("caps", final_logit_softcapping=4.0, sliding_window=9,
            num_key_value_heads=1),
    _granite("plain", embedding_multiplier=3.0, logits_scaling=4.0, residual_multiplier=0.3,
             attention_multiplier=0.2),
    _granite("biases-tied", attention_bias=True, mlp_bias=True, tie_word_embeddings=True,
             residual_multiplier=0.22),
    _nemotron("plain"),
    _nemotron("biases", attention_bias=True, mlp_bias=True, head_dim=12,
              rope_parameters={"rope_type": "default", "rope_theta": 1e4,
                               "partial_rotary_factor": 0.5}),
    _smollm3("plain", num_hidden_layers=4),
    _smollm3("windows", num_hidden_layers=4, no_rope_layer_interval=2, use_sliding_window=True,
             sliding_window=6, mlp_bias=True),
    _mpt("plain"),
    _mpt("clip", attn_config={"clip_qkv": 0.3}, n_heads=4, d_model=36),
)  # fmt: skip
