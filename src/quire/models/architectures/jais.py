"""Jais: GPT-2's names and layouts with ALiBi, a gated MLP, and scales by the rules of muP.

The scales have two spellings: that of Jais-13b, and that of the later ones with ``mup_``.
"""

from __future__ import annotations

from quire.layers.spec import GatedMLPSpec, LearnedPositionsSpec, PlainMLPSpec
from quire.models.alibi import alibi
from quire.models.architectures.gpt2 import with_falling_scales
from quire.models.common import (
    GPT_SPELLINGS,
    activation_from,
    attention_with,
    embedding_from,
    gated_mlp_from,
    head_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import GPT2_PARTS, fused_qkv, layer_entries, weight_map

_INERT = ("reorder_and_upcast_attn",)  # a guard against overflow in float16
_PARTS = {**GPT2_PARTS, "mlp.gate": "mlp.c_fc2"}


def jais(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    norm, num_heads = layer_norm_from(hf), hf.int("num_attention_heads")
    has_alibi = hf.choice("position_embedding_type", {"learned": False, "alibi": True}, "learned")
    learned = LearnedPositionsSpec(num_positions=hf.int("n_positions", 1024))
    attention = attention_with(
        hf, alibi(num_heads) if has_alibi else None, scale=_scale(hf, num_heads), bias=True
    )
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=_mlp(hf), norms=(norm, norm))
    output_scale = hf.float(("mup_width_scale", "width_scale"), 1.0)
    return plan_from(
        hf,
        with_falling_scales(hf, layer),
        final_norm=norm,
        embedding=embedding_from(
            hf,
            scale=hf.float(("mup_embeddings_scale", "embeddings_scale"), 1.0),
            positions=None if has_alibi else learned,
        ),
        head=head_from(hf, tied=True, scale=output_scale * hf.float("mup_output_alpha", 1.0)),
        weights=weight_map(
            layer_entries("h.*", _PARTS, turned=True),
            fused_qkv("h.*.attn.c_attn", attention, turned=True),
        ),
        inert=_INERT,
    )


def _scale(hf: HFConfig, num_heads: int) -> float | None:
    by_dim = hf.bool(("mup_scale_qk_dot_by_d", "scale_qk_dot_by_d"), False)
    if not hf.bool("scale_attn_weights", True):
        return 1.0
    return num_heads / hf.int("hidden_size") if by_dim else None


def _mlp(hf: HFConfig) -> GatedMLPSpec | PlainMLPSpec:
    inner_size = 4 * hf.int("hidden_size")
    if hf.str("hidden_act", "gelu_new") == "swiglu":
        return gated_mlp_from(hf, bias=True, inner_size=inner_size, activation="silu")
    activation = activation_from(hf, "gelu_new")
    return plain_mlp_from(hf, activation=activation, inner_size=inner_size)
