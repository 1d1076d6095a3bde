"""InternLM, the first: Llama with biases in attention and rotary keys of its own."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import DynamicScaling, RopeSpec
from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def internlm(hf: HFConfig) -> ModelPlan:
    bias = hf.bool("bias", True)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias)
    assert isinstance(attention.positions, RopeSpec)
    norm = rms_norm_from(hf)
    layer = LayerSpec(
        block="pre_norm",
        attention=replace(attention, positions=_rope(hf, attention.positions)),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)


def _rope(hf: HFConfig, llamas: RopeSpec) -> RopeSpec:
    """As ``rotary`` says, which the oldest files lack; a ``rope_scaling`` is somebody's wish."""
    rotary = hf.nested("rotary")
    beyond = DynamicScaling(
        factor=1.0, original_max_positions=hf.int("max_position_embeddings", 2048)
    )
    own_scaling = rotary.choice("type", {"origin": None, "dynamic": beyond}, "dynamic")
    return RopeSpec(
        dim=llamas.dim,
        theta=rotary.float("base", llamas.theta),
        scaling=llamas.scaling or own_scaling,
    )
