"""OLMo 2: each branch is normed where it ends, and q and k over all their heads together."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import RMSNormSpec
from quire.models.common import (
    attention_from,
    decoder_from,
    gated_mlp_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_NORMS = {"norm1": "post_attention_layernorm", "norm2": "post_feedforward_layernorm"}


def olmo2(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias)
    q_norm, k_norm = (
        RMSNormSpec(size=heads * attention.head_dim, eps=norm.eps)
        for heads in (attention.num_heads, attention.num_kv_heads)
    )
    layer = LayerSpec(
        block="branch_norm",
        attention=replace(attention, qk_norms=(q_norm, k_norm)),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=llama_weights_with(_NORMS))
