"""Mixtral: Mistral's block with a mixture of experts in place of the MLP."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.models.common import (
    ACTIVATION_NAMES,
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.mixtures import MIXTRAL_EXPERT, expert_entries
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def mixtral(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf, eps=1e-5)
    moe = MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size"),
        num_experts=hf.int("num_local_experts", 8),
        top_k=hf.int("num_experts_per_tok", 2),
        activation=hf.choice("hidden_act", ACTIVATION_NAMES, "silu"),
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
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    experts = expert_entries("model.layers.*.block_sparse_moe", moe.num_experts, MIXTRAL_EXPERT)
    weights = replace(LLAMA_WEIGHTS, entries={**LLAMA_WEIGHTS.entries, **experts})
    return ModelPlan(spec=spec, weights=weights)
