"""Phi-3.5-MoE: Mixtral with layer norms, biases, and two experts chosen one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quire.layers.moe_spec import MoESpec, SparseMixerRouting
from quire.layers.spec import AttentionSpec, LongRopeScaling, RopeSpec
from quire.models.common import (
    activation_from,
    attention_from,
    head_from,
    layer_norm_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.mixtures import MIXTRAL_EXPERT, expert_entries
from quire.models.plan import ModelPlan
from quire.models.rope_config import TRAINED_LENGTH, RopeConfig
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_INERT = ("input_jitter_noise",)


def phimoe(hf: HFConfig) -> ModelPlan:
    norm, moe = layer_norm_from(hf, keys="rms_norm_eps"), _moe(hf)
    experts = expert_entries("model.layers.*.block_sparse_moe", moe.num_experts, MIXTRAL_EXPERT)
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=_attention(hf), mlp=moe, norms=(norm, norm)),
        final_norm=norm,
        head=head_from(hf, bias=hf.bool("lm_head_bias", False)),
        weights=llama_weights_with({}, experts),
        inert=_INERT,
    )


def _attention(hf: HFConfig) -> AttentionSpec:
    hf.optional_int("original_max_position_embeddings")  # of longrope; some files repeat it
    rope = _with_stated_factor(hf, hf.rope(theta=1e6))
    attention = attention_from(
        hf,
        bias=hf.bool("attention_bias", False),
        window=hf.optional_int("sliding_window"),
        rope=rope,
        num_kv_heads=8,
    )
    assert isinstance(attention.positions, RopeSpec)
    return replace(attention, positions=_with_own_factors(attention.positions, rope.params))


def _with_stated_factor(hf: HFConfig, rope: RopeConfig) -> RopeConfig:
    """``rope`` with longrope's factor filled in from the lengths (default 131072)."""
    if rope.type != "longrope":
        return rope
    longest = hf.int("max_position_embeddings", 131072)
    trained = rope.params.get(TRAINED_LENGTH, longest)
    stated = {TRAINED_LENGTH: trained, "factor": longest / trained}
    return replace(rope, params={**stated, **rope.params})


def _with_own_factors(rope: RopeSpec, params: Mapping[str, float]) -> RopeSpec:
    """Longrope's factors of cos and sin, where the config has them: no other family reads them."""
    scaling = rope.scaling
    if not isinstance(scaling, LongRopeScaling):
        return rope
    short = params.get("short_mscale", scaling.short_attention_factor)
    long = params.get("long_mscale", scaling.long_attention_factor)
    own = replace(scaling, short_attention_factor=short, long_attention_factor=long)
    return replace(rope, scaling=own)


def _moe(hf: HFConfig) -> MoESpec:
    hf.fixed("num_experts_per_tok", 2)  # chosen one after the other
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=hf.int("intermediate_size"),
        num_experts=hf.int("num_local_experts", 16),
        top_k=2,
        activation=activation_from(hf),
        routing=SparseMixerRouting(jitter=hf.float("router_jitter_noise", 0.01)),
    )
