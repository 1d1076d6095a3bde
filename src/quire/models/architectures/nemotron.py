"""Nemotron: layer norms by 1 + w, a plain MLP with squared ReLU, half of each head rotated."""

from __future__ import annotations

from quire.layers.spec import LayerNormSpec, PlainMLPSpec
from quire.models.common import ACTIVATION_NAMES, LLAMA_WEIGHTS, attention_from, decoder_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec


def nemotron(hf: HFConfig) -> ModelPlan:
    hidden_size, bias = hf.int("hidden_size"), hf.bool("attention_bias", False)
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("norm_eps", 1e-5), weight_offset=1.0)
    rope = hf.rope(partial_keys=("partial_rotary_factor", "rope_percent"), partial=0.5)
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, qkv_bias=bias, out_bias=bias, rope=rope),
        mlp=PlainMLPSpec(
            hidden_size=hidden_size,
            inner_size=hf.int("intermediate_size"),
            activation=hf.choice("hidden_act", ACTIVATION_NAMES, "relu2"),
            bias=hf.bool("mlp_bias", False),
        ),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm)
    hf.check_unread(("kv_channels",))  # says the head size a second time
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
