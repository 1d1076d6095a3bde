"""Qwen, the first: Llama under other names, half the stated MLP width, and two ways to go beyond
the trained length."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec, GatedMLPSpec, QwenScaling, RopeSpec
from quire.models.common import attention_with, embedding_from, head_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import GPT2_PARTS, fused_qkv, layer_entries, weight_map

_SPELLINGS = {
    "hidden_size": "n_embd",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "rms_norm_eps": "layer_norm_epsilon",
}
_INERT = (
    *("bf16", "fp16", "fp32", "params_dtype", "softmax_in_fp32"),
    *("bias_dropout_fusion", "onnx_safe", "tokenizer_type", "use_cache_kernel"),
    "scale_attn_weights",  # the code sets it to true
    "vocab_size",  # below padded_vocab_size, if there are two
)
_PARTS = {**GPT2_PARTS, "mlp.gate": "mlp.w2", "mlp.up": "mlp.w1"}


def qwen(hf: HFConfig) -> ModelPlan:
    # The first config class, which has n_embd, switched both off where a config is silent.
    goes_beyond = hf.optional_int("hidden_size") is not None
    hf = hf.with_spellings(**_SPELLINGS)
    hf.choice("activation", {"swiglu": None}, "swiglu")
    norm, has_bias = rms_norm_from(hf), not hf.bool("no_bias", True)
    attention = _attention(hf, has_bias, goes_beyond)
    mlp = GatedMLPSpec(
        hidden_size=norm.size,
        inner_size=hf.int("intermediate_size", 22016) // 2,
        activation="silu",
        bias=has_bias,
    )
    vocab_size = hf.optional_int("padded_vocab_size")
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm)),
        final_norm=norm,
        embedding=embedding_from(hf, vocab_size=vocab_size),
        head=head_from(hf, vocab_size=vocab_size),
        weights=weight_map(layer_entries("h.*", _PARTS), fused_qkv("h.*.attn.c_attn", attention)),
        inert=_INERT,
    )


def _attention(hf: HFConfig, out_bias: bool, goes_beyond: bool) -> AttentionSpec:
    """``goes_beyond``: stretches positions and scales queries beyond the trained length, unless the
    config says otherwise."""
    hf.choice("pos_emb", {"rotary": None}, "rotary")
    head_dim, trained = hf.int("kv_channels", 128), hf.int("seq_length", 8192)
    stretches = hf.bool("use_dynamic_ntk", goes_beyond)
    rope = RopeSpec(
        dim=int(head_dim * hf.float("rotary_pct", 1.0)),
        theta=hf.float("rotary_emb_base", 10000.0),
        scaling=QwenScaling(original_max_positions=trained) if stretches else None,
    )
    return replace(
        attention_with(hf, rope, head_dim=head_dim, bias=out_bias),
        qkv_bias=True,
        log_length=trained if hf.bool("use_logn_attn", goes_beyond) else None,
    )
