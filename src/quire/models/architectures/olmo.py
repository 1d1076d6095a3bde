"""OLMo as transformers has it: norms without weights, and perhaps q, k and v held in bounds."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import LayerNormSpec
from quire.models.common import LLAMA_WEIGHTS, attention_from, decoder_from, gated_mlp_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def olmo(hf: HFConfig) -> ModelPlan:
    norm = LayerNormSpec(size=hf.int("hidden_size"), eps=1e-5, weight=False, bias=False)
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias)
    layer = LayerSpec(
        block="pre_norm",
        attention=replace(attention, clip=hf.optional_float("clip_qkv")),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
