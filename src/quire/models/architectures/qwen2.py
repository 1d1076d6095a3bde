"""Qwen1.5, Qwen2 and Qwen2.5: biases on q, k and v; windows in the upper layers if switched on."""

from __future__ import annotations

from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    rms_norm_from,
    windows_by_layer,
)
from quire.models.hf_config import HFConfig
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
        for window in windows_by_layer(hf)
    ]
    spec = decoder_from(hf, layers, final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
