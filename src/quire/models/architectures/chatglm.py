"""ChatGLM2 and 3 (and GLM-4 in their layout): Llama with half of each head rotated, pair by pair.

The first ChatGLM is another model, with another architecture name.
"""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadSpec,
    LayerNormSpec,
    LinearScaling,
    NormSpec,
    RMSNormSpec,
    RopeSpec,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import fused_gate_up, fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_INERT = (
    "apply_query_key_layer_scaling",  # scales scores down, and up again before the softmax
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "fp32_residual_connection",
    "original_rope",
    "vocab_size",  # padded_vocab_size counts
)
_PARTS = {
    "attention.o": "self_attention.dense",
    "mlp.down": "mlp.dense_4h_to_h",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def chatglm(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int("hidden_size", 4096), _vocab_size(hf)
    norm = _norm(hf, hidden_size)
    has_bias = hf.bool("add_bias_linear", False)
    attention = _attention(hf, hidden_size, has_bias)
    mlp = GatedMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("ffn_hidden_size", 13696),
        activation="silu",
        bias=has_bias,
    )
    keeps_normed = hf.bool("apply_residual_connection_post_layernorm", False)
    layer = LayerSpec(
        block="normed_residual" if keeps_normed else "pre_norm",
        attention=attention,
        mlp=mlp,
        norms=(norm, norm),
    )
    spec = DecoderSpec(
        embedding=EmbeddingSpec(vocab_size=vocab_size, hidden_size=hidden_size),
        layers=(layer,) * hf.int(("num_layers", "num_hidden_layers")),
        final_norm=norm if hf.bool("post_layer_norm", True) else None,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", False),
        ),
    )
    layout = "concatenated" if hf.bool("multi_query_attention", False) else "per_head"
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention, layout, mlp.inner_size))


def _vocab_size(hf: HFConfig) -> int:
    return hf.optional_int("padded_vocab_size") or hf.int("vocab_size")


def _norm(hf: HFConfig, hidden_size: int) -> NormSpec:
    kind = RMSNormSpec if hf.bool("rmsnorm", True) else LayerNormSpec
    return kind(size=hidden_size, eps=hf.float("layernorm_epsilon", 1e-5))


def _attention(hf: HFConfig, hidden_size: int, out_bias: bool) -> AttentionSpec:
    num_heads, head_dim = hf.int("num_attention_heads", 32), hf.int("kv_channels", 128)
    groups = hf.int("multi_query_group_num", 1)
    return AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=groups if hf.bool("multi_query_attention", False) else num_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=_rope(hf, head_dim),
        qkv_bias=hf.bool("add_qkv_bias", False) or out_bias,
        out_bias=out_bias,
    )


def _rope(hf: HFConfig, head_dim: int) -> RopeSpec:
    """``rope_ratio`` raises the base; the code of ChatGLM2-32k divides positions by it instead, and
    only the name that its config carries tells it apart."""
    ratio = hf.float("rope_ratio", 1.0)
    divides = "chatglm2" in hf.str("_name_or_path", "").lower()
    return RopeSpec(
        dim=head_dim // 2,
        theta=10000.0 if divides else 10000.0 * ratio,
        style="interleaved",
        scaling=LinearScaling(factor=ratio) if divides and ratio != 1.0 else None,
    )


def _weights(attention: AttentionSpec, layout: str, inner_size: int) -> WeightMap:
    names = model_entries(
        embedding="embedding.word_embeddings",
        final_norm="encoder.final_layernorm",
        head="output_layer",
    )
    layer = "encoder.layers.*"
    return WeightMap(
        entries={
            **names,
            **layer_entries(layer, _PARTS),
            **fused_qkv(f"{layer}.self_attention.query_key_value", attention, layout),
            **fused_gate_up(f"{layer}.mlp.dense_h_to_4h", inner_size),
        },
        ignored=("*rotary_pos_emb.inv_freq", "*output_layer.weight"),
        prefixes=("transformer.", ""),
    )
