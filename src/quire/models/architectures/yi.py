"""The first revisions of Yi: Llama under other names for the norms."""

from __future__ import annotations

from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_NORMS = {"norm1": "ln1", "norm2": "ln2"}


def yi(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, theta=5e6),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm, weights=llama_weights_with(_NORMS))
