"""InternLM, the first: Llama with biases in attention and rotary keys of its own."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import DynamicScaling, RopeSpec
from quire.models.common import attention_from, gated_mlp_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def internlm(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    attention = attention_from(hf, bias=hf.bool("bias", True))
    assert isinstance(attention.positions, RopeSpec)
    layer = LayerSpec(
        block="pre_norm",
        attention=replace(attention, positions=_rope(hf, attention.positions)),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm)


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
