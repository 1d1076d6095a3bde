"""GPT-J: attention and MLP side by side behind one norm, interleaved rotation of the first values
of a head, a head with a bias."""

from __future__ import annotations

from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.layers.spec import AttentionSpec
from quire.models.common import (
    GPT_SPELLINGS,
    activation_from,
    attention_with,
    head_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
    rope_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import layer_entries, weight_map

_PARTS = {
    **{f"attention.{part}": f"attn.{part}_proj" for part in "qkv"},
    "attention.o": "attn.out_proj",
    "mlp.up": "mlp.fc_in",
    "mlp.down": "mlp.fc_out",
    "norm1": "ln_1",
}


def gptj(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    hf.fixed("rotary", True)
    hf.fixed("scale_attn_weights", True)
    norm = layer_norm_from(hf)
    mlp = plain_mlp_from(hf, activation=activation_from(hf, "gelu_new"), inner_size=4 * norm.size)
    return plan_from(
        hf,
        LayerSpec(block="parallel", attention=_attention(hf), mlp=mlp, norms=(norm,)),
        final_norm=norm,
        head=head_from(hf, bias=True),
        weights=weight_map(layer_entries("h.*", _PARTS)),
    )


def _attention(hf: HFConfig) -> AttentionSpec:
    attention, dim = attention_with(hf, None), hf.int("rotary_dim", 64)
    if dim % 2 or not 2 <= dim <= attention.head_dim:
        raise UnsupportedModelError(
            f"config key 'rotary_dim' = {dim} of {hf.architecture} must be an even number from 2 "
            f"to the head size, {attention.head_dim}"
        )
    return replace(attention, positions=rope_from(hf, hf.rope(), dim, "interleaved"))
