"""GPT-J: attention and MLP side by side behind one norm, interleaved rotation of the first values
of a head, a head with a bias."""

from __future__ import annotations

from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.layers.spec import AttentionSpec
from quire.models.common import (
    GPT_SPELLINGS,
    decoder_from,
    layer_norm_from,
    plain_mlp_from,
    rope_from,
    unrotated_attention_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import layer_entries, model_entries
from quire.weights.weight_map import WeightMap

_PARTS = {
    **{f"attention.{part}": f"attn.{part}_proj" for part in "qkv"},
    "attention.o": "attn.out_proj",
    "mlp.up": "mlp.fc_in",
    "mlp.down": "mlp.fc_out",
    "norm1": "ln_1",
}
_WEIGHTS = WeightMap(
    entries={
        **model_entries(embedding="wte", final_norm="ln_f"),
        **layer_entries("h.*", _PARTS),
    },
    ignored=("*attn.bias", "*attn.masked_bias", "lm_head.weight"),
    prefixes=("transformer.", ""),
)


def gptj(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    norm = layer_norm_from(hf)
    mlp = plain_mlp_from(hf, bias=True, inner_size=4 * norm.size, activation="gelu_new")
    layer = LayerSpec(block="parallel", attention=_attention(hf), mlp=mlp, norms=(norm,))
    layers = [layer] * hf.int("num_hidden_layers")
    spec = decoder_from(hf, layers, final_norm=norm, head_bias=True)
    hf.fixed("rotary", True)
    hf.fixed("scale_attn_weights", True)
    hf.check_unread()
    return ModelPlan(spec=spec, weights=_WEIGHTS)


def _attention(hf: HFConfig) -> AttentionSpec:
    attention = unrotated_attention_from(hf)
    rotary_dim = hf.int("rotary_dim", 64)
    if rotary_dim % 2 or not 2 <= rotary_dim <= attention.head_dim:
        raise UnsupportedModelError(
            f"config key 'rotary_dim' = {rotary_dim} of {hf.architecture} must be an even number "
            f"from 2 to the head size, {attention.head_dim}"
        )
    rope = rope_from(hf, hf.rope(), rotary_dim, "interleaved")
    return replace(attention, positions=rope)
