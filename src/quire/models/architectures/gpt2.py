"""GPT-2: learned positions, layer norms, a plain MLP, weights stored as (in, out), a tied head."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import AttentionSpec, LearnedPositionsSpec
from quire.models.common import (
    GPT_SPELLINGS,
    activation_from,
    attention_with,
    embedding_from,
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


def gpt2(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    norm = layer_norm_from(hf)
    scale = None if hf.bool("scale_attn_weights", True) else 1.0
    attention = attention_with(hf, None, scale=scale, bias=True)
    mlp = plain_mlp_from(hf, activation=activation_from(hf, "gelu_new"), inner_size=4 * norm.size)
    layer = LayerSpec(block="pre_norm", attention=attention, mlp=mlp, norms=(norm, norm))
    positions = LearnedPositionsSpec(num_positions=hf.int(("n_positions", "n_ctx"), 1024))
    return plan_from(
        hf,
        with_falling_scales(hf, layer),
        final_norm=norm,
        embedding=embedding_from(hf, positions=positions),
        head=head_from(hf, tied=True),
        weights=weight_map(
            layer_entries("h.*", GPT2_PARTS, turned=True),
            fused_qkv("h.*.attn.c_attn", attention, turned=True),
        ),
        inert=_INERT,
    )


def with_falling_scales(hf: HFConfig, layer: LayerSpec) -> list[LayerSpec]:
    """``layer`` for every layer, with scores divided by its number (from 1) if the config asks."""
    attention = layer.attention
    assert isinstance(attention, AttentionSpec)
    falls = hf.bool("scale_attn_by_inverse_layer_idx", False)
    return [
        replace(
            layer, attention=replace(attention, scale=attention.scale / (number if falls else 1))
        )
        for number in range(1, hf.int("num_hidden_layers") + 1)
    ]
