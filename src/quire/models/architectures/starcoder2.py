"""StarCoder2: layer norms and a plain GELU MLP with biases around grouped heads, and windows."""

from __future__ import annotations

from quire.models.common import (
    activation_from,
    attention_from,
    head_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import llama_weights_with

_PARTS = {"mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
# The training code's other keys: `norm_epsilon` and `hidden_act` are those that are used.
_INERT = (
    "activation_function",
    "attention_softmax_in_fp32",
    "scale_attention_softmax_in_fp32",
    "layer_norm_epsilon",
    "rms_norm_eps",
)


def starcoder2(hf: HFConfig) -> ModelPlan:
    # The training code has two spellings of the same norm and MLP.
    hf.fixed("norm_type", "layer_norm")
    hf.fixed("mlp_type", "default")
    hf.fixed("scale_attn_weights", True)
    norm, bias = layer_norm_from(hf, keys="norm_epsilon"), hf.bool("use_bias", True)
    window = hf.optional_int("sliding_window")
    layer = LayerSpec(
        block="pre_norm",
        attention=attention_from(hf, bias=bias, window=window, num_kv_heads=2),
        mlp=plain_mlp_from(hf, activation=activation_from(hf, "gelu_pytorch_tanh"), bias=bias),
        norms=(norm, norm),
    )
    return plan_from(
        hf,
        layer,
        final_norm=norm,
        head=head_from(hf, tied=True),
        weights=llama_weights_with(_PARTS),
        inert=_INERT,
    )
