"""Granite: Llama with four constants: of embeddings, of scores, of each branch, of logits."""

from __future__ import annotations

from quire.models.common import (
    attention_from,
    embedding_from,
    gated_mlp_from,
    head_from,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def granite(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(
            hf,
            bias=hf.bool("attention_bias", False),
            scale=hf.float("attention_multiplier", 1.0),
        ),
        mlp=gated_mlp_from(hf, bias=hf.bool("mlp_bias", False)),
        norms=(norm, norm),
        residual_scale=hf.float("residual_multiplier", 1.0),
    )
    return plan_from(
        hf,
        layer,
        final_norm=norm,
        embedding=embedding_from(hf, scale=hf.float("embedding_multiplier", 1.0)),
        head=head_from(hf, scale=1.0 / hf.float("logits_scaling", 1.0)),
    )
