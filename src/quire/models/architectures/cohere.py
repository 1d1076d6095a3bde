"""Command-R: attention and gated MLP side by side behind one norm without bias, interleaved
rotation, logits scaled; Command-R+ norms every head of q and k with weights of its own."""

from __future__ import annotations

from quire.models.common import (
    attention_from,
    gated_mlp_from,
    head_from,
    layer_norm_from,
    norming_heads_apart,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def cohere(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, bias=False)
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, bias=bias, theta=500000.0, style="interleaved")
    if hf.bool("use_qk_norm", False):
        attention = norming_heads_apart(attention, norm.eps)
    layer = LayerSpec(block="parallel", attention=attention, mlp=gated_mlp_from(hf), norms=(norm,))
    head = head_from(hf, tied=True, scale=hf.float("logit_scale", 0.0625))
    return plan_from(hf, layer, final_norm=norm, head=head)
