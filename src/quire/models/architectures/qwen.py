"""Qwen, the first: Llama under other names, half the stated MLP width, and two ways to go beyond
the trained length."""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadSpec,
    QwenScaling,
    RMSNormSpec,
    RopeSpec,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_INERT = (
    "bf16",
    "bias_dropout_fusion",
    "fp16",
    "fp32",
    "onnx_safe",
    "params_dtype",
    "scale_attn_weights",  # the code sets it to true
    "softmax_in_fp32",
    "tokenizer_type",
    "use_cache_kernel",
)
_PARTS = {
    "attention.o": "attn.c_proj",
    "mlp.gate": "mlp.w2",
    "mlp.up": "mlp.w1",
    "mlp.down": "mlp.c_proj",
    "norm1": "ln_1",
    "norm2": "ln_2",
}


def qwen(hf: HFConfig) -> ModelPlan:
    hidden_size = hf.int(("hidden_size", "n_embd"))
    vocab_size = hf.optional_int("padded_vocab_size") or hf.int("vocab_size")
    hf.optional_int("vocab_size")  # below the padded one, if there are two
    hf.choice("activation", {"swiglu": None}, "swiglu")
    norm = RMSNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-6))
    has_bias = not hf.bool("no_bias", True)
    attention = _attention(hf, hidden_size, has_bias)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention,
        mlp=GatedMLPSpec(
            hidden_size=hidden_size,
            inner_size=hf.int(("intermediate_size", "ffn_hidden_size"), 22016) // 2,
            activation="silu",
            bias=has_bias,
        ),
        norms=(norm, norm),
    )
    spec = DecoderSpec(
        embedding=EmbeddingSpec(vocab_size=vocab_size, hidden_size=hidden_size),
        layers=(layer,) * hf.int(("num_hidden_layers", "n_layer")),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", False),
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention))


def _attention(hf: HFConfig, hidden_size: int, out_bias: bool) -> AttentionSpec:
    num_heads, head_dim = hf.int(("num_attention_heads", "n_head")), hf.int("kv_channels", 128)
    hf.choice("pos_emb", {"rotary": None}, "rotary")
    # The first config class, which has n_embd, switched both off where a config is silent.
    default = hf.optional_int("hidden_size") is not None
    stretches, scales = hf.bool("use_dynamic_ntk", default), hf.bool("use_logn_attn", default)
    trained = hf.int("seq_length", 8192)
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=RopeSpec(
            dim=int(head_dim * hf.float("rotary_pct", 1.0)),
            theta=hf.float("rotary_emb_base", 10000.0),
            scaling=QwenScaling(original_max_positions=trained) if stretches else None,
        ),
        qkv_bias=True,
        out_bias=out_bias,
        log_length=trained if scales else None,
    )


def _weights(attention: AttentionSpec) -> WeightMap:
    return WeightMap(
        entries={
            **model_entries(embedding="wte", final_norm="ln_f"),
            **layer_entries("h.*", _PARTS),
            **fused_qkv("h.*.attn.c_attn", attention),
        },
        ignored=("*rotary_emb.inv_freq", "*.attn.masked_bias", "*.attn.bias", "lm_head.weight"),
        prefixes=("transformer.", ""),
    )
