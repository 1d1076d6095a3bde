"""Llama and the many models that took over its block."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec

_INERT = ("max_tokenizer_truncation",)  # Xverse


def llama(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, bias=hf.bool("attention_bias", False)),
        mlp=gated_mlp_from(hf, bias=hf.bool("mlp_bias", False)),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm, inert=_INERT)
