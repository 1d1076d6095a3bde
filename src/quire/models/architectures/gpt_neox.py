"""GPT-NeoX and Pythia: attention and MLP side by side, each behind a norm of its own, rotation of
the first quarter of a head, q, k and v fused head by head."""

from __future__ import annotations

from quire.models.common import (
    activation_from,
    attention_from,
    layer_norm_from,
    plain_mlp_from,
    plan_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import MEGATRON_PARTS, fused_qkv, layer_entries, weight_map

_INERT = ("is_decoder", "num_steps")  # the latter: how long Polyglot was trained
_PARTS = {**MEGATRON_PARTS, "attention.o": "attention.dense"}


def gpt_neox(hf: HFConfig) -> ModelPlan:
    norm = layer_norm_from(hf)
    rope = hf.rope(
        theta_keys=("rotary_emb_base", "rope_theta"),
        partial_keys=("rotary_pct", "partial_rotary_factor"),
        partial=0.25,
    )
    hf.fixed("num_key_value_heads", hf.int("num_attention_heads"))
    attention = attention_from(hf, bias=hf.bool("attention_bias", True), rope=rope)
    is_parallel = hf.bool("use_parallel_residual", True)
    layer = LayerSpec(
        block="parallel" if is_parallel else "pre_norm",
        attention=attention,
        mlp=plain_mlp_from(hf, activation=activation_from(hf, "gelu"), inner_size=24576),
        norms=(norm, norm),
    )
    weights = weight_map(
        layer_entries("layers.*", _PARTS),
        fused_qkv("layers.*.attention.query_key_value", attention, "per_head"),
        embedding="embed_in",
        final_norm="final_layer_norm",
        head="embed_out",
        prefixes=("gpt_neox.", ""),
    )
    return plan_from(hf, layer, final_norm=norm, weights=weights, inert=_INERT)
