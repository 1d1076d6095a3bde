"""Granite: Llama with four constants: of embeddings, of scores, of each branch, of logits."""

from __future__ import annotations

from dataclasses import replace

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


def granite(hf: HFConfig) -> ModelPlan:
    bias = hf.bool("attention_bias", False)
    norm = rms_norm_from(hf)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias)
    layer = LayerSpec(
        block="pre_norm",
        attention=replace(attention, scale=hf.float("attention_multiplier", 1.0)),
        mlp=gated_mlp_from(hf, bias=hf.bool("mlp_bias", False)),
        norms=(norm, norm),
        residual_scale=hf.float("residual_multiplier", 1.0),
    )
    spec = decoder_from(
        hf,
        [layer] * hf.int("num_hidden_layers"),
        final_norm=norm,
        embedding_scale=hf.float("embedding_multiplier", 1.0),
    )
    head = replace(spec.head, scale=1.0 / hf.float("logits_scaling", 1.0))
    hf.check_unread()
    return ModelPlan(spec=replace(spec, head=head), weights=LLAMA_WEIGHTS)
