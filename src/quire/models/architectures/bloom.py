"""BLOOM: ALiBi, a norm after the embedding, biases everywhere, q, k and v fused head by head."""

from __future__ import annotations

from quire.layers.spec import PlainMLPSpec
from quire.models.alibi import alibi
from quire.models.common import (
    GPT_SPELLINGS,
    attention_with,
    embedding_from,
    head_from,
    layer_norm_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import MEGATRON_PARTS, fused_qkv, layer_entries, weight_map
from quire.weights.weight_map import Source

_INERT = (
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
    "offset_alibi",
    "skip_bias_add*",  # biases are added either way, fused or not
    "slow_but_exact",
)
_PARTS = {**MEGATRON_PARTS, "attention.o": "self_attention.dense"}


def bloom(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    norm = layer_norm_from(hf)
    attention = attention_with(hf, alibi(hf.int("num_attention_heads")), bias=True)
    keeps_normed = hf.bool("apply_residual_connection_post_layernorm", False)
    layer = LayerSpec(
        block="normed_residual" if keeps_normed else "pre_norm",
        attention=attention,
        mlp=PlainMLPSpec(hidden_size=norm.size, inner_size=4 * norm.size, activation="gelu_tanh"),
        norms=(norm, norm),
    )
    return plan_from(
        hf,
        layer,
        final_norm=norm,
        embedding=embedding_from(hf, norm=norm),
        head=head_from(hf, tied=True),
        weights=weight_map(
            layer_entries("h.*", _PARTS),
            fused_qkv("h.*.self_attention.query_key_value", attention, "per_head"),
            {
                f"embedding.norm.{kind}": Source(f"word_embeddings_layernorm.{kind}")
                for kind in ("weight", "bias")
            },
            embedding="word_embeddings",
        ),
        inert=_INERT,
    )
