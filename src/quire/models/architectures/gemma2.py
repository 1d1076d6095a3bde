"""Gemma 2: norms around both branches, soft caps of scores and logits, a window in every other
layer. What Gemma 3 shares with it is public here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from quire.layers.spec import Activation, AttentionSpec
from quire.models.common import (
    attention_from,
    embedding_from,
    gated_mlp_from,
    head_from,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import every_nth_full, windows_by_layer
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_GELU: dict[str, Activation] = {"gelu_pytorch_tanh": "gelu_tanh"}
_INERT = ("hidden_act", "cache_implementation")  # `hidden_activation` is the one that is used
_NORMS = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "norm3": "pre_feedforward_layernorm",
    "norm4": "post_feedforward_layernorm",
}


def gemma2(hf: HFConfig) -> ModelPlan:
    attention = attention_from(
        hf,
        bias=hf.bool("attention_bias", False),
        head_dim=256,
        num_kv_heads=4,
        scale=hf.float("query_pre_attn_scalar", 256) ** -0.5,
        soft_cap=hf.nullable_float("attn_logit_softcapping", absent=50.0),
    )
    window = hf.nullable_int("sliding_window", absent=4096)
    hf.fixed("sliding_window_size", window)  # the 9B's files say it twice
    windows = windows_by_layer(hf, window, every_nth_full(hf.int("num_hidden_layers"), 2))
    attentions = [replace(attention, window=window) for window in windows]
    return gemma_plan(hf, attentions, hf.nullable_float("final_logit_softcapping", absent=30.0))


def gemma_plan(
    hf: HFConfig, attentions: Iterable[AttentionSpec], soft_cap: float | None
) -> ModelPlan:
    """A Gemma model with these attentions in sandwich blocks; ``soft_cap`` limits the logits."""
    norm = rms_norm_from(hf, weight_offset=1.0)
    activation = hf.choice("hidden_activation", _GELU, "gelu_pytorch_tanh")
    mlp = gated_mlp_from(hf, activation=activation)
    layers = [
        LayerSpec(block="sandwich", attention=attention, mlp=mlp, norms=(norm,) * 4)
        for attention in attentions
    ]
    return plan_from(
        hf,
        layers,
        final_norm=norm,
        embedding=embedding_from(hf, scale=norm.size**0.5),
        head=head_from(hf, tied=True, soft_cap=soft_cap),
        weights=llama_weights_with(_NORMS),
        inert=_INERT,
    )
