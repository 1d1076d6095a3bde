"""Orion: Llama with layer norms."""

from __future__ import annotations

from quire.layers.spec import LayerNormSpec
from quire.models.common import LLAMA_WEIGHTS, attention_from, decoder_from, gated_mlp_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def orion(hf: HFConfig) -> ModelPlan:
    # The key keeps Llama's name.
    norm = LayerNormSpec(size=hf.int("hidden_size"), eps=hf.float("rms_norm_eps", 1e-5))
    bias = hf.bool("attention_bias", False)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, qkv_bias=bias, out_bias=bias),
        mlp=gated_mlp_from(hf),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
