"""Command-R: attention and gated MLP side by side behind one norm without bias, interleaved
rotation, logits scaled; Command-R+ norms every head of q and k with weights of its own."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import HeadsLayerNormSpec
from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    layer_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def cohere(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, bias=False)
    bias = hf.bool("attention_bias", False)
    attention = attention_from(
        hf, qkv_bias=bias, out_bias=bias, theta=500000.0, style="interleaved"
    )
    if hf.bool("use_qk_norm", False):
        q_norm, k_norm = (
            HeadsLayerNormSpec(num_heads=heads, size=attention.head_dim, eps=norm.eps)
            for heads in (attention.num_heads, attention.num_kv_heads)
        )
        attention = replace(attention, qk_norms=(q_norm, k_norm))
    layer = LayerSpec(block="parallel", attention=attention, mlp=gated_mlp_from(hf), norms=(norm,))
    spec = decoder_from(
        hf,
        [layer] * hf.int("num_hidden_layers"),
        final_norm=norm,
        tied=True,
        head_scale=hf.float("logit_scale", 0.0625),
    )
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
