"""Persimmon: biases everywhere, norms of the heads of q and k, partial rotation, squared ReLU."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import attention_from, decoder_from, layer_norm_from, plain_mlp_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import fused_qkv, layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    "attention.o": "self_attn.dense",
    "attention.q_norm": "self_attn.q_layernorm",
    "attention.k_norm": "self_attn.k_layernorm",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def persimmon(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf)
    hf.fixed("num_key_value_heads", hf.int("num_attention_heads"))
    rope = hf.rope(partial_keys=("partial_rotary_factor",), partial=0.5)
    attention = attention_from(hf, qkv_bias=True, out_bias=True, rope=rope)
    if hf.bool("qk_layernorm", True):
        head_norm = replace(norm, size=attention.head_dim)
        attention = replace(attention, qk_norms=(head_norm, head_norm))
    mlp = plain_mlp_from(hf, bias=True, inner_size=16384, activation="relu2")
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    weights = WeightMap(
        entries={
            **model_entries(embedding="model.embed_tokens", final_norm="model.final_layernorm"),
            **layer_entries("model.layers.*", _PARTS),
            **fused_qkv("model.layers.*.self_attn.query_key_value", attention, "per_head"),
        },
        ignored=("*.rotary_emb.inv_freq", "lm_head.weight"),
    )
    return ModelPlan(spec=spec, weights=weights)
