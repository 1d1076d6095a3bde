"""DeepSeek-V2 and V3 (and R1, Moonlight, Kimi-K2): latent attention, and experts in groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from quire.layers.mla_spec import MLASpec
from quire.layers.moe_spec import GroupedRouting, MoESpec, SharedExpertSpec
from quire.models.architectures.deepseek_weights import deepseek_weights
from quire.models.common import activation_from, gated_mlp_from, plan_from, rms_norm_from, rope_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.rope_config import RopeConfig
from quire.models.spec import LayerSpec

_INERT = (
    *("aux_loss_alpha", "ep_size", "seq_aux", "num_nextn_predict_layers"),
    *("qk_head_dim", "num_key_value_heads"),  # said by the sizes of q, k and v
    *("n_group", "topk_group"),  # of a routing without groups
)
_LATENT_EPS = 1e-6  # of the latents' norms; the config's rms_norm_eps is for the others


def deepseek_v2(hf: HFConfig) -> ModelPlan:
    hf.choice("scoring_func", {"softmax": None}, "softmax")
    attention = _attention(hf, is_interleaved=True)
    experts = hf.nullable_int("n_routed_experts", absent=64)
    routing = hf.choice("topk_method", _V2_ROUTINGS, "greedy")(hf)
    top_k = hf.int("num_experts_per_tok") if experts else 0
    return _plan(hf, attention, experts, routing, top_k=top_k, num_shared=2, first_dense=0)


def deepseek_v3(hf: HFConfig) -> ModelPlan:
    hf.choice("scoring_func", {"sigmoid": None}, "sigmoid")
    hf.choice("topk_method", {"noaux_tc": None}, "noaux_tc")
    attention = _attention(hf, is_interleaved=hf.bool("rope_interleave", True))
    experts = hf.nullable_int("n_routed_experts", absent=256)
    routing = GroupedRouting(
        score="sigmoid",
        num_groups=hf.int("n_group", 8),
        top_groups=hf.int("topk_group", 4),
        group_rank="best_two",
        renormalise=hf.bool("norm_topk_prob", True),
        scale=hf.float("routed_scaling_factor", 2.5),
        correction=True,
    )
    top_k = hf.int("num_experts_per_tok", 8)
    return _plan(hf, attention, experts, routing, top_k=top_k, num_shared=1, first_dense=3)


def _greedy(hf: HFConfig) -> GroupedRouting:
    """All experts in one group. ``norm_topk_prob`` is not read, so true is refused: the original
    code then omits the scale, and transformers ignores the key."""
    return GroupedRouting(
        score="softmax",
        num_groups=1,
        top_groups=1,
        group_rank="best",
        renormalise=False,
        scale=hf.float("routed_scaling_factor", 1.0),
        correction=False,
    )


def _group_limited(hf: HFConfig) -> GroupedRouting:
    return replace(_greedy(hf), num_groups=hf.int("n_group"), top_groups=hf.int("topk_group"))


_V2_ROUTINGS: dict[str, Callable[[HFConfig], GroupedRouting]] = {
    "greedy": _greedy,
    "group_limited_greedy": _group_limited,
}


def _plan(
    hf: HFConfig,
    attention: MLASpec,
    num_experts: int | None,
    routing: GroupedRouting,
    *,
    top_k: int,
    num_shared: int,
    first_dense: int,
) -> ModelPlan:
    """The plan; ``num_shared`` and ``first_dense`` are the defaults for absent config keys."""
    norm, mlp = rms_norm_from(hf), gated_mlp_from(hf)
    moe = _moe(hf, num_experts, routing, top_k, num_shared) if num_experts else mlp
    dense, mixed = (
        LayerSpec(block="pre_norm", attention=attention, mlp=part, norms=(norm, norm))
        for part in (mlp, moe)
    )
    num_dense = hf.int("first_k_dense_replace", first_dense)
    every = hf.int("moe_layer_freq", 1)
    layers = [
        mixed if layer >= num_dense and layer % every == 0 else dense
        for layer in range(hf.int("num_hidden_layers"))
    ]
    weights = deepseek_weights(hf, num_experts or 0)
    return plan_from(hf, layers, final_norm=norm, weights=weights, inert=_INERT)


def _moe(
    hf: HFConfig, num_experts: int, routing: GroupedRouting, top_k: int, num_shared: int
) -> MoESpec:
    inner_size = hf.int("moe_intermediate_size")
    # Several shared experts are one that is as wide as they are together.
    shared = hf.nullable_int("n_shared_experts", absent=num_shared)
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=inner_size,
        num_experts=num_experts,
        top_k=top_k,
        activation=activation_from(hf),
        routing=routing,
        exact_router=True,
        shared=SharedExpertSpec(mlp=replace(gated_mlp_from(hf), inner_size=shared * inner_size))
        if shared
        else None,
    )


def _attention(hf: HFConfig, *, is_interleaved: bool) -> MLASpec:
    nope_dim, rope_dim = hf.int("qk_nope_head_dim", 128), hf.int("qk_rope_head_dim", 64)
    rope = hf.rope()
    hf.fixed("head_dim", rope_dim)  # transformers' name for the rotated part
    return MLASpec(
        hidden_size=hf.int("hidden_size"),
        num_heads=hf.int("num_attention_heads"),
        nope_dim=nope_dim,
        rope_dim=rope_dim,
        value_dim=hf.int("v_head_dim", 128),
        kv_rank=hf.int("kv_lora_rank", 512),
        q_rank=hf.nullable_int("q_lora_rank", absent=1536),
        eps=_LATENT_EPS,
        scale=(nope_dim + rope_dim) ** -0.5 * _sharpness(rope) ** 2,
        positions=rope_from(hf, rope, rope_dim, "interleaved" if is_interleaved else "half"),
        bias=hf.bool("attention_bias", False),
    )


def _sharpness(rope: RopeConfig) -> float:
    """YaRN's factor on q and on k beyond the trained length; 1 without scaling."""
    factor, weight = rope.params.get("factor", 1.0), rope.params.get("mscale_all_dim", 0.0)
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0
