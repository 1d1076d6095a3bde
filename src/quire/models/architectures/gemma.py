"""Gemma: norms by 1 + w, embeddings times sqrt(E), GELU gates, a head tied to the embedding."""

from __future__ import annotations

from quire.layers.spec import Activation
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

# The first configs said "gelu" and meant the tanh approximation that the models were trained with.
_GELU: dict[str, Activation] = {"gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def gemma(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, weight_offset=1.0)
    hf.choice("hidden_act", _GELU, "gelu")
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, bias=hf.bool("attention_bias", False), head_dim=256),
        mlp=gated_mlp_from(hf, activation=hf.choice("hidden_activation", _GELU, "gelu")),
        norms=(norm, norm),
    )
    return plan_from(
        hf,
        layer,
        final_norm=norm,
        embedding=embedding_from(hf, scale=norm.size**0.5),
        head=head_from(hf, tied=True),
    )
