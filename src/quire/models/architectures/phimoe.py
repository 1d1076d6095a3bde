"""Phi-3.5-MoE: Mixtral with layer norms, biases, and two experts chosen one after the other."""

from __future__ import annotations

from quire.errors import UnsupportedModelError
from quire.layers.moe_spec import MoESpec, SparseMixerRouting
from quire.models.common import (
    ACTIVATION_NAMES,
    attention_from,
    head_from,
    layer_norm_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.mixtures import MIXTRAL_EXPERT, expert_entries
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_INERT = ("input_jitter_noise",)


def phimoe(hf: HFConfig) -> ModelPlan:
    norm, moe = layer_norm_from(hf, keys="rms_norm_eps"), _moe(hf)
    hf.optional_int("original_max_position_embeddings")  # of longrope; some files repeat it
    bias = hf.bool("attention_bias", False)
    attention = attention_from(
        hf,
        bias=bias,
        window=hf.optional_int("sliding_window"),
        theta=1e6,
        num_kv_heads=8,
    )
    experts = expert_entries("model.layers.*.block_sparse_moe", moe.num_experts, MIXTRAL_EXPERT)
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=attention, mlp=moe, norms=(norm, norm)),
        final_norm=norm,
        head=head_from(hf, bias=hf.bool("lm_head_bias", False)),
        weights=llama_weights_with({}, experts),
        inert=_INERT,
    )


def _moe(hf: HFConfig) -> MoESpec:
    top_k = hf.int("num_experts_per_tok", 2)
    if top_k != 2:
        raise UnsupportedModelError(
            f"config key 'num_experts_per_tok' = {top_k} is not supported for {hf.architecture}, "
            "whose routing chooses 2"
        )
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size"),
        num_experts=hf.int("num_local_experts", 16),
        top_k=top_k,
        activation=hf.choice("hidden_act", ACTIVATION_NAMES, "silu"),
        routing=SparseMixerRouting(jitter=hf.float("router_jitter_noise", 0.01)),
    )
