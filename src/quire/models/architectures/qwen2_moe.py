"""Qwen1.5-MoE and Qwen2-MoE: experts, and beside them one that every token goes through, weighed
by a gate of its own."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.moe_spec import MoESpec, SharedExpertSpec, SoftmaxRouting
from quire.layers.spec import GatedMLPSpec
from quire.models.common import (
    activation_from,
    attention_from,
    gated_mlp_from,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import FULL, SLIDING, switched_window, windows_by_layer
from quire.models.mixtures import expert_entries, layers_with_experts, shared_entries
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with
from quire.weights.weight_map import WeightMap


def qwen2_moe(hf: HFConfig) -> ModelPlan:
    norm, mlp = rms_norm_from(hf), gated_mlp_from(hf, inner_size=5632)
    moe = _moe(hf, mlp)
    bias = hf.bool("qkv_bias", True)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=attention_from(hf, qkv_bias=bias, window=window),
            mlp=moe if has_experts else mlp,
            norms=(norm, norm),
        )
        for has_experts, window in zip(layers_with_experts(hf), _windows(hf), strict=True)
    ]
    return plan_from(hf, layers, final_norm=norm, weights=_weights(moe.num_experts))


def _moe(hf: HFConfig, mlp: GatedMLPSpec) -> MoESpec:
    shared = replace(mlp, inner_size=hf.int("shared_expert_intermediate_size", 5632))
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("moe_intermediate_size", 1408),
        num_experts=hf.int("num_experts", 60),
        top_k=hf.int("num_experts_per_tok", 4),
        activation=activation_from(hf),
        routing=SoftmaxRouting(renormalise=hf.bool("norm_topk_prob", False)),
        shared=SharedExpertSpec(mlp=shared, gated=True),
    )


def _windows(hf: HFConfig) -> list[int | None]:
    """Each layer's window: if switched on, in every other of the first ``max_window_layers``."""
    first_full, num_layers = hf.int("max_window_layers", 28), hf.int("num_hidden_layers")
    windowed = [layer % 2 == 0 and layer < first_full for layer in range(num_layers)]
    kinds = [SLIDING if has_window else FULL for has_window in windowed]
    return windows_by_layer(hf, switched_window(hf), kinds)


def _weights(num_experts: int) -> WeightMap:
    mlp = "model.layers.*.mlp"
    parts = {"moe.shared.shared_gate": "mlp.shared_expert_gate"}
    experts = expert_entries(mlp, num_experts) | shared_entries(f"{mlp}.shared_expert")
    return llama_weights_with(parts, experts)
