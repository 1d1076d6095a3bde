"""Qwen3-MoE: Qwen3's attention; most or all layers have a mixture of experts for an MLP."""

from __future__ import annotations

from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.models.common import (
    activation_from,
    attention_from,
    gated_mlp_from,
    norming_each_head,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import switched_window
from quire.models.mixtures import expert_entries, layers_with_experts
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with


def qwen3_moe(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    hf.fixed("use_qk_norm", True)  # Qwen3-Coder's files say so
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, bias=bias, window=switched_window(hf))
    attention = norming_each_head(attention, norm)
    moe, mlp = _moe(hf), gated_mlp_from(hf, inner_size=6144)
    layers = [
        LayerSpec(block="pre_norm", attention=attention, mlp=part, norms=(norm, norm))
        for part in (moe if has_experts else mlp for has_experts in layers_with_experts(hf))
    ]
    return plan_from(
        hf,
        layers,
        final_norm=norm,
        weights=llama_weights_with({}, expert_entries("model.layers.*.mlp", moe.num_experts)),
        inert=("max_window_layers",),  # a window, where switched on, is every layer's
    )


def _moe(hf: HFConfig) -> MoESpec:
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("moe_intermediate_size", 768),
        num_experts=hf.int(("num_experts", "num_local_experts"), 128),
        top_k=hf.int("num_experts_per_tok", 8),
        activation=activation_from(hf),
        routing=SoftmaxRouting(renormalise=hf.bool("norm_topk_prob", False)),
    )
