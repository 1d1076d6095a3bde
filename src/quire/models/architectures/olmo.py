"""OLMo as transformers has it: norms without weights, and perhaps q, k and v held in bounds."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import LayerNormSpec
from quire.models.common import attention_from, gated_mlp_from, plan_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def olmo(hf: HFConfig) -> ModelPlan:
    norm = LayerNormSpec(size=hf.int("hidden_size"), eps=1e-5, weight=False, bias=False)
    attention = attention_from(hf, bias=hf.bool("attention_bias", False))
    layer = LayerSpec(
        block="pre_norm",
        attention=replace(attention, clip=hf.optional_float("clip_qkv")),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm)
