"""Mixtral: Mistral's block with a mixture of experts in place of the MLP."""

from __future__ import annotations

from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.models.common import activation_from, attention_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.mixtures import MIXTRAL_EXPERT, expert_entries
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with


def mixtral(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    moe = MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size"),
        num_experts=hf.int("num_local_experts", 8),
        top_k=hf.int("num_experts_per_tok", 2),
        activation=activation_from(hf),
        routing=SoftmaxRouting(renormalise=True),
    )
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(
            hf, window=hf.optional_int("sliding_window"), theta=1e6, num_kv_heads=8
        ),
        mlp=moe,
        norms=(norm, norm),
    )
    experts = expert_entries("model.layers.*.block_sparse_moe", moe.num_experts, MIXTRAL_EXPERT)
    return plan_from(hf, layer, final_norm=norm, weights=llama_weights_with({}, experts))
