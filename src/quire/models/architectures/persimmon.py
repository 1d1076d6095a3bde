"""Persimmon: biases everywhere, norms of the heads of q and k, partial rotation, squared ReLU."""

from __future__ import annotations

from quire.models.common import (
    activation_from,
    attention_from,
    layer_norm_from,
    norming_each_head,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import MEGATRON_PARTS, fused_qkv, layer_entries, weight_map

_PARTS = {
    **MEGATRON_PARTS,
    "attention.o": "self_attn.dense",
    "attention.q_norm": "self_attn.q_layernorm",
    "attention.k_norm": "self_attn.k_layernorm",
}


def persimmon(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf)
    hf.fixed("num_key_value_heads", hf.int("num_attention_heads"))
    rope = hf.rope(partial_keys=("partial_rotary_factor",), partial=0.5)
    attention = attention_from(hf, bias=True, rope=rope)
    if hf.bool("qk_layernorm", True):
        attention = norming_each_head(attention, norm)
    mlp = plain_mlp_from(hf, activation=activation_from(hf, "relu2"), inner_size=16384)
    weights = weight_map(
        layer_entries("layers.*", _PARTS),
        fused_qkv("layers.*.self_attn.query_key_value", attention, "per_head"),
        embedding="embed_tokens",
        final_norm="final_layernorm",
        prefixes=("model.", ""),
    )
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    return plan_from(hf, layer, final_norm=norm, weights=weights)
