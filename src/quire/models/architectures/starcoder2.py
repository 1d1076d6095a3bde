"""StarCoder2: layer norms and a plain GELU MLP with biases around grouped heads, and windows."""

from __future__ import annotations

from quire.layers.spec import LayerNormSpec, PlainMLPSpec
from quire.models.common import ACTIVATION_NAMES, attention_from, decoder_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_PARTS = {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
# Which of two ways of writing the same norm and MLP the training code took.
_NORMS = {"layer_norm": "layer_norm"}
_MLPS = {"default": "default"}
# The training code's other keys: `norm_epsilon` is the one that is used.
_INERT = (
    "attention_softmax_in_fp32",
    "layer_norm_epsilon",
    "scale_attention_softmax_in_fp32",
    "scale_attn_weights",
)


def starcoder2(hf: HFConfig) -> ModelPlan:
    hidden_size, bias = hf.int("hidden_size"), hf.bool("use_bias", True)
    hf.choice("norm_type", _NORMS, "layer_norm")
    hf.choice("mlp_type", _MLPS, "default")
    norm = LayerNormSpec(size=hidden_size, eps=hf.float("norm_epsilon", 1e-5))
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(
            hf, qkv_bias=bias, out_bias=bias, window=hf.optional_int("sliding_window")
        ),
        mlp=PlainMLPSpec(
            hidden_size=hidden_size,
            inner_size=hf.int("intermediate_size"),
            activation=hf.choice("hidden_act", ACTIVATION_NAMES, "gelu_pytorch_tanh"),
            bias=bias,
        ),
        norms=(norm, norm),
    )
    spec = decoder_from(hf, [layer] * hf.int("num_hidden_layers"), final_norm=norm, tied=True)
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=llama_weights_with(_PARTS))
