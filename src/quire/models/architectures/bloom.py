"""BLOOM: ALiBi, a norm after the embedding, biases everywhere, q, k and v fused head by head."""

from __future__ import annotations

from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    HeadSpec,
    LayerNormSpec,
    PlainMLPSpec,
)
from quire.models.alibi import alibi
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import DecoderSpec, LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import Source, WeightMap

_INERT = (
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "offset_alibi",
    "skip_bias_add*",  # biases are added either way, fused or not
    "slow_but_exact",
)
_PARTS = {
    "attention.o": "self_attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def bloom(hf: HFConfig) -> ModelPlan:
    hidden_size, vocab_size = hf.int(("hidden_size", "n_embed", "n_embd")), hf.int("vocab_size")
    num_heads = hf.int(("n_head", "num_attention_heads"))
    head_dim = hidden_size // num_heads
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("layer_norm_epsilon", 1e-5))
    attention = AttentionSpec(
        hidden_size=hidden_size,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_dim=head_dim,
        scale=head_dim**-0.5,
        positions=alibi(num_heads),
        qkv_bias=True,
        out_bias=True,
    )
    keeps_normed = hf.bool("apply_residual_connection_post_layernorm", False)
    layer = LayerSpec(
        block="normed_residual" if keeps_normed else "pre_norm",
        attention=attention,
        mlp=PlainMLPSpec(
            hidden_size=hidden_size, inner_size=4 * hidden_size, activation="gelu_tanh"
        ),
        norms=(norm, norm),
    )
    spec = DecoderSpec(
        embedding=EmbeddingSpec(vocab_size=vocab_size, hidden_size=hidden_size, norm=norm),
        layers=(layer,) * hf.int(("n_layer", "num_hidden_layers")),
        final_norm=norm,
        head=HeadSpec(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            tied=hf.bool("tie_word_embeddings", True),
        ),
    )
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(attention))


def _weights(attention: AttentionSpec) -> WeightMap:
    return WeightMap(
        entries={
            **model_entries(embedding="word_embeddings", final_norm="ln_f"),
            "embedding.norm.weight": Source("word_embeddings_layernorm.weight"),
            "embedding.norm.bias": Source("word_embeddings_layernorm.bias"),
            **layer_entries("h.*", _PARTS),
            **fused_qkv("h.*.self_attention.query_key_value", attention, "per_head"),
        },
        ignored=("lm_head.weight",),
        prefixes=("transformer.", ""),
    )
