"""Mistral: Llama's block with a sliding window in every layer."""

from __future__ import annotations

from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def mistral(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(
            hf, window=hf.nullable_int("sliding_window", absent=4096), num_kv_heads=8
        ),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
