"""Orion: Llama with layer norms."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, layer_norm_from, plan_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def orion(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, keys="rms_norm_eps")  # the key keeps Llama's name
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, bias=hf.bool("attention_bias", False)),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm)
