"""SmolLM3: Llama in which every fourth layer has no positions."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    gated_mlp_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import FULL, SLIDING, layer_types
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def smollm3(hf: HFConfig) -> ModelPlan:
    num_layers, interval = hf.int("num_hidden_layers"), hf.int("no_rope_layer_interval", 4)
    bias = hf.bool("attention_bias", False)
    attention = attention_from(hf, qkv_bias=bias, out_bias=bias, theta=2e6, num_kv_heads=4)
    rotated = hf.optional_list("no_rope_layers")  # in spite of its name, 1 means with RoPE
    if rotated is None:
        rotated = [(index + 1) % interval != 0 for index in range(num_layers)]
    window = hf.optional_int("sliding_window")
    if not hf.bool("use_sliding_window", False):
        window = None
    kinds = layer_types(hf, [FULL if with_rope else SLIDING for with_rope in rotated])
    norm = rms_norm_from(hf)
    mlp = gated_mlp_from(hf, bias=hf.bool("mlp_bias", False))
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=replace(
                attention,
                positions=attention.positions if with_rope else None,
                window=window if kind == SLIDING else None,
            ),
            mlp=mlp,
            norms=(norm, norm),
        )
        for with_rope, kind in zip(rotated, kinds, strict=False)
    ]
    spec = decoder_from(hf, layers, final_norm=norm, tied=True)
    hf.check_unread(("max_window_layers",))  # Qwen's key: `layer_types` decides
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
