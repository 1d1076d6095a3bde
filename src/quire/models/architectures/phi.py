"""Phi-1 to Phi-2: attention and MLP side by side behind one norm, partial rotation, biases."""

from __future__ import annotations

from quire.models.common import (
    activation_from,
    attention_from,
    head_from,
    layer_norm_from,
    norming_each_head,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import layer_entries, weight_map

_PARTS = {
    **{f"attention.{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attention.o": "self_attn.dense",
    "attention.q_norm": "self_attn.q_layernorm",
    "attention.k_norm": "self_attn.k_layernorm",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
    "norm1": "input_layernorm",
}
_WEIGHTS = weight_map(
    layer_entries("layers.*", _PARTS),
    embedding="embed_tokens",
    final_norm="final_layernorm",
    prefixes=("model.", ""),
)


def phi(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf)
    rope = hf.rope(partial_keys=("partial_rotary_factor",), partial=0.5)
    attention = attention_from(hf, bias=True, rope=rope)
    if hf.bool("qk_layernorm", False):
        attention = norming_each_head(attention, norm)
    mlp = plain_mlp_from(hf, activation=activation_from(hf, "gelu_new"), inner_size=4 * norm.size)
    layer = LayerSpec(block="parallel", attention=attention, mlp=mlp, norms=(norm,))
    return plan_from(hf, layer, final_norm=norm, head=head_from(hf, bias=True), weights=_WEIGHTS)
