"""Gemma: norms by 1 + w, embeddings times sqrt(E), GELU gates, a head tied to the embedding."""

from __future__ import annotations

from quire.layers.spec import Activation, GatedMLPSpec
from quire.models.common import (
    LLAMA_WEIGHTS,
    attention_from,
    decoder_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec

# The first configs said "gelu" and meant the tanh approximation that the models were trained with.
_GELU: dict[str, Activation] = {"gelu": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}


def gemma(hf: HFConfig) -> ModelPlan:
    hidden_size = hf.int("hidden_size")
    norm = rms_norm_from(hf, weight_offset=1.0)
    bias = hf.bool("attention_bias", False)
    hf.choice("hidden_act", _GELU, "gelu")
    mlp = GatedMLPSpec(
        hidden_size=hidden_size,
        inner_size=hf.int("intermediate_size"),
        activation=hf.choice("hidden_activation", _GELU, "gelu"),
    )
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, qkv_bias=bias, out_bias=bias, head_dim=256),
        mlp=mlp,
        norms=(norm, norm),
    )
    spec = decoder_from(
        hf,
        [layer] * hf.int("num_hidden_layers"),
        final_norm=norm,
        tied=True,
        embedding_scale=hidden_size**0.5,
    )
    hf.check_unread()
    return ModelPlan(spec=spec, weights=LLAMA_WEIGHTS)
