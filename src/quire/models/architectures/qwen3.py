"""Qwen3: every head of q and k is normed before its positions are put in."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import (
    attention_from,
    gated_mlp_from,
    norming_each_head,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import upper_windows
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def qwen3(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, bias=bias, head_dim=128)
    attention = norming_each_head(attention, norm)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=replace(attention, window=window),
            mlp=gated_mlp_from(hf),
            norms=(norm, norm),
        )
        for window in upper_windows(hf)
    ]
    return plan_from(hf, layers, final_norm=norm)
