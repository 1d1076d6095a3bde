"""Mistral: Llama's block with a sliding window in every layer."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def mistral(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    window = hf.nullable_int("sliding_window", absent=4096)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, window=window, num_kv_heads=8),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm)
