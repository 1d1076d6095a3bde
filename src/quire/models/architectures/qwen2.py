"""Qwen1.5, Qwen2 and Qwen2.5: biases on q, k and v; windows in the upper layers if switched on."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.layer_types import upper_windows
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def qwen2(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=attention_from(hf, qkv_bias=True, window=window),
            mlp=gated_mlp_from(hf),
            norms=(norm, norm),
        )
        for window in upper_windows(hf)
    ]
    return plan_from(hf, layers, final_norm=norm)
