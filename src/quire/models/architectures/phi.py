"""Phi-1 to Phi-2: attention and MLP side by side behind one norm, partial rotation, biases."""

from __future__ import annotations

from dataclasses import replace

from quire.models.common import attention_from, decoder_from, layer_norm_from, plain_mlp_from
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    **{f"attention.{part}": f"self_attn.{part}_proj" for part in "qkv"},
    "attention.o": "self_attn.dense",
    "attention.q_norm": "self_attn.q_layernorm",
    "attention.k_norm": "self_attn.k_layernorm",
    "mlp.up": "mlp.fc1",
    "mlp.down": "mlp.fc2",
    "norm1": "input_layernorm",
}
_WEIGHTS = WeightMap(
    entries={
        **model_entries(embedding="model.embed_tokens", final_norm="model.final_layernorm"),
        **layer_entries("model.layers.*", _PARTS),
    },
    ignored=("*.rotary_emb.inv_freq", "lm_head.weight"),
)


def phi(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf)
    rope = hf.rope(partial_keys=("partial_rotary_factor",), partial=0.5)
    attention = attention_from(hf, qkv_bias=True, out_bias=True, rope=rope)
    if hf.bool("qk_layernorm", False):
        head_norm = replace(norm, size=attention.head_dim)
        attention = replace(attention, qk_norms=(head_norm, head_norm))
    mlp = plain_mlp_from(hf, bias=True, inner_size=4 * norm.size, activation="gelu_new")
    layer = LayerSpec(block="parallel", attention=attention, mlp=mlp, norms=(norm,))
    layers = [layer] * hf.int("num_hidden_layers")
    spec = decoder_from(hf, layers, final_norm=norm, head_bias=True)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_WEIGHTS)
