"""OLMo 2: each branch is normed where it ends, and q and k over all their heads together."""

from __future__ import annotations

from quire.models.common import (
    attention_from,
    gated_mlp_from,
    norming_all_heads,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_NORMS = {"norm1": "post_attention_layernorm", "norm2": "post_feedforward_layernorm"}


def olmo2(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    attention = attention_from(hf, bias=hf.bool("attention_bias", False))
    layer = LayerSpec(
        block="branch_norm",
        attention=norming_all_heads(attention, norm),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm, weights=llama_weights_with(_NORMS))
