"""DBRX: layer norms without biases, clipped q, k and v in one tensor, and many small experts."""

from __future__ import annotations

from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.layers.spec import AttentionSpec, LayerNormSpec
from quire.models.common import ACTIVATION_NAMES, attention_with, plan_from, rope_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import Entries, fused_qkv, layer_entries, weight_map
from quire.weights.expert_layouts import PiledExperts, TurnedExperts
from quire.weights.weight_map import Source

_INERT = (
    "attn_config.attn_pdrop",
    "ffn_config.hidden_size",  # the model's own
    "ffn_config.moe_jitter_eps",
    "ffn_config.moe_loss_weight",
    "ffn_config.uniform_expert_assignment",
    "num_key_value_heads",
)

_SPELLINGS = {
    "hidden_size": "d_model",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
}
_PARTS = {
    "attention.o": "norm_attn_norm.attn.out_proj",
    "norm1": "norm_attn_norm.norm_1",
    "norm2": "norm_attn_norm.norm_2",
    "moe.router": "ffn.router.layer",
}


def dbrx(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**_SPELLINGS)
    norm = LayerNormSpec(size=hf.int("hidden_size"), eps=1e-5, bias=False)
    attention, moe = _attention(hf), _moe(hf)
    return plan_from(
        hf,
        LayerSpec(block="pre_norm", attention=attention, mlp=moe, norms=(norm, norm)),
        final_norm=norm,
        weights=weight_map(
            layer_entries("blocks.*", _PARTS),
            fused_qkv("blocks.*.norm_attn_norm.attn.Wqkv", attention),
            _experts(moe.num_experts),
            final_norm="norm_f",
        ),
        inert=_INERT,
    )


def _attention(hf: HFConfig) -> AttentionSpec:
    config = hf.nested("attn_config")
    head_dim = hf.int("hidden_size") // hf.int("num_attention_heads")
    rope = hf.rope(theta=config.float("rope_theta", 10000.0))
    attention = attention_with(
        hf, rope_from(hf, rope, head_dim), num_kv_heads=config.int("kv_n_heads", 1)
    )
    return replace(attention, clip=config.optional_float("clip_qkv"))


def _moe(hf: HFConfig) -> MoESpec:
    config = hf.nested("ffn_config")
    power = config.nullable_float("moe_normalize_expert_weights", absent=1.0)
    if power not in (None, 1.0):
        raise UnsupportedModelError(
            f"config key 'ffn_config.moe_normalize_expert_weights' = {power:g} is not supported "
            f"for {hf.architecture}; supported: 1 and null"
        )
    activation = config.nested("ffn_act_fn").choice("name", ACTIVATION_NAMES, "silu")
    return MoESpec(
        hidden_size=hf.int("hidden_size"),
        inner_size=config.int("ffn_hidden_size", 3584),
        num_experts=config.int("moe_num_experts", 4),
        top_k=config.int("moe_top_k", 1),
        activation=activation,
        routing=SoftmaxRouting(renormalise=power is not None),
    )


def _experts(num_experts: int) -> Entries:
    gate, up, down = (
        PiledExperts(Source(f"blocks.*.ffn.experts.mlp.{name}"), num_experts)
        for name in ("w1", "v1", "w2")
    )
    return {
        "layers.*.moe.experts.gate.weight": gate,
        "layers.*.moe.experts.up.weight": up,
        "layers.*.moe.experts.down.weight": TurnedExperts(down),
    }
