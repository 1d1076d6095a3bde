"""SmolLM3: Llama in which every fourth layer has no positions."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import attention_from, gated_mlp_from, head_from, plan_from, rms_norm_from
from quire.models.hf_config import HFConfig
from quire.models.layer_types import FULL, SLIDING, list_by_layer, switched_window, windows_by_layer
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec

_INERT = ("max_window_layers",)  # Qwen's key: `layer_types` decides


def smollm3(hf: HFConfig) -> ModelPlan:
    norm = rms_norm_from(hf)
    mlp = gated_mlp_from(hf, bias=hf.bool("mlp_bias", False))
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, bias=bias, theta=2e6, num_kv_heads=4)
    num_layers, interval = hf.int("num_hidden_layers"), hf.int("no_rope_layer_interval", 4)
    rotated = list_by_layer(hf, "no_rope_layers")  # in spite of its name, 1 means with RoPE
    if rotated is None:
        rotated = [(index + 1) % interval != 0 for index in range(num_layers)]
    kinds = [FULL if with_rope else SLIDING for with_rope in rotated]
    windows = windows_by_layer(hf, switched_window(hf, absent=None), kinds)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=replace(
                attention, positions=attention.positions if with_rope else None, window=window
            ),
            mlp=mlp,
            norms=(norm, norm),
        )
        for with_rope, window in zip(rotated, windows, strict=True)
    ]
    return plan_from(hf, layers, final_norm=norm, head=head_from(hf, tied=True), inert=_INERT)
