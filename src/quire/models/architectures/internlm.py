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
    rotary = hf.nested("rotary")  # absent in the oldest files; `rope_theta` comes from overrides
    attention = attention_from(hf, bias=hf.bool("bias", True), theta=rotary.float("base", 10000.0))
    assert isinstance(attention.positions, RopeSpec)
    layer = LayerSpec(
        block="pre_norm",
        attention=replace(attention, positions=_scaled(hf, rotary, attention.positions)),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    return plan_from(hf, layer, final_norm=norm)


def _scaled(hf: HFConfig, rotary: HFConfig, rope: RopeSpec) -> RopeSpec:
    """``rope`` with the scaling of ``rotary``, unless an override has set ``rope_scaling``."""
    beyond = DynamicScaling(
        factor=1.0, original_max_positions=hf.int("max_position_embeddings", 2048)
    )
    own = rotary.choice("type", {"origin": None, "dynamic": beyond}, "dynamic")
    return rope if rope.scaling else replace(rope, scaling=own)
