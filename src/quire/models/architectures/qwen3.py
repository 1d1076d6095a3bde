"""Qwen3: every head of q and k is normed before its positions are put in."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    head_dim_from,
    rms_norm_from,
    windows_by_layer,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def qwen3(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    head_norm = replace(norm, size=head_dim_from(hf))
    bias = hf.bool("attention_bias", False)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=attention_from(
                hf, qkv_bias=bias, out_bias=bias, qk_norms=(head_norm, head_norm), window=window
            ),
            mlp=gated_mlp_from(hf),
            norms=(norm, norm),
        )
        for window in windows_by_layer(hf)
    ]
    spec = decoder_from(hf, layers, final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
