"""Llama and the many models that took over its block."""

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

_INERT = ("max_tokenizer_truncation",)  # Xverse


def llama(hf: HFConfig) -> ModelPlan:
    attention_bias = hf.bool("attention_bias", False)
    norm = rms_norm_from(hf)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, qkv_bias=attention_bias, out_bias=attention_bias),
        mlp=gated_mlp_from(hf, bias=hf.bool("mlp_bias", False)),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
