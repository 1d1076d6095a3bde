"""Nemotron: layer norms by 1 + w, a plain MLP with squared ReLU, half of each head rotated."""

from __future__ import annotations

from quire.models.common import (
    activation_from,
    attention_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def nemotron(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf, keys="norm_eps", weight_offset=1.0)
    rope = hf.rope(partial_keys=("partial_rotary_factor", "rope_percent"), partial=0.5)
    attention = attention_from(hf, bias=hf.bool("attention_bias", False), rope=rope)
    hf.fixed("kv_channels", attention.head_dim)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention,
        mlp=plain_mlp_from(
            hf, activation=activation_from(hf, "relu2"), bias=hf.bool("mlp_bias", False)
        ),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm)
