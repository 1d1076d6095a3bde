"""DeciLM: Llama whose layers differ.

Two generations under one name: the first gives each layer its number of KV heads; Nemotron-NAS
describes each layer's parts in ``block_configs``, where a part may be missing.
"""

from __future__ import annotations

from dataclasses import replace

from quire.errors import UnsupportedModelError
from quire.layers.spec import AttentionSpec, GatedMLPSpec
from quire.models.common import (
    ACTIVATION_NAMES,
    attention_from,
    gated_mlp_from,
    plan_from,
    rms_norm_from,
)
from quire.models.hf_config import HFConfig
from quire.models.layer_types import list_by_layer
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import Entries, llama_weights_with
from quire.weights.weight_map import Source

_INERT = ("intermediate_size", "naive_attention_*")  # the first: beside blocks with their own
_OF_A_MISSING_PART = ("ffn_mult", "gated", "hidden_act", "intermediate_size", "n_heads_in_group")
_WIDTHS = 256  # a width from ffn_mult is a multiple of this

Parts = tuple[AttentionSpec | None, GatedMLPSpec | None]


def decilm(hf: HFConfig) -> ModelPlan:
    blocks = list_by_layer(hf, "block_configs")
    if blocks is None:
        parts = _parts_by_kv_heads(hf)
    else:
        parts = [_parts_of_block(hf, index, block) for index, block in enumerate(blocks)]
    norm = rms_norm_from(hf)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=attention,
            mlp=mlp,
            norms=(norm,) * ((attention is not None) + (mlp is not None)),
        )
        for attention, mlp in parts
    ]
    weights = llama_weights_with({}, _only_norms(layers))
    return plan_from(hf, layers, final_norm=norm, weights=weights, inert=_INERT)


def _parts_by_kv_heads(hf: HFConfig) -> list[Parts]:
    attention, mlp = _attention(hf), gated_mlp_from(hf, bias=hf.bool("mlp_bias", False))
    counts = list_by_layer(hf, "num_key_value_heads_per_layer")
    if counts is None:
        return [(attention, mlp)] * hf.int("num_hidden_layers")
    return [(replace(attention, num_kv_heads=count), mlp) for count in counts]


def _parts_of_block(hf: HFConfig, index: int, data: dict[str, object]) -> Parts:
    block = HFConfig(data, hf.architecture, f"block_configs[{index}].")
    attention, ffn = block.nested("attention"), block.nested("ffn")
    parts = (
        None if attention.bool("no_op", False) else _block_attention(hf, attention),
        None if ffn.bool("no_op", False) else _block_mlp(hf, ffn),
    )
    block.check_unread(_OF_A_MISSING_PART)
    return parts


def _attention(hf: HFConfig) -> AttentionSpec:
    return attention_from(hf, bias=hf.bool("attention_bias", False))


def _block_attention(hf: HFConfig, block: HFConfig) -> AttentionSpec:
    whole = _attention(hf)
    return replace(whole, num_kv_heads=whole.num_heads // block.int("n_heads_in_group"))


def _block_mlp(hf: HFConfig, block: HFConfig) -> GatedMLPSpec:
    if not block.bool("gated", True):
        raise UnsupportedModelError(
            f"{hf.architecture} in Quire does not implement MLPs without a gate, which config key "
            "'block_configs' asks for with 'ffn.gated' = false"
        )
    hidden_size, width = hf.int("hidden_size"), block.optional_int("intermediate_size")
    if width is None:
        wanted = int(2 * block.float("ffn_mult") * hidden_size / 3)
        width = -(-wanted // _WIDTHS) * _WIDTHS
    return GatedMLPSpec(
        hidden_size=hidden_size,
        inner_size=width,
        activation=block.choice("hidden_act", ACTIVATION_NAMES, hf.str("hidden_act", "silu")),
        bias=hf.bool("mlp_bias", False),
    )


def _only_norms(layers: list[LayerSpec]) -> Entries:
    """Entries for layers without attention, whose only norm is the MLP's."""
    return {
        f"layers.{index}.norm1.weight": Source(
            f"model.layers.{index}.post_attention_layernorm.weight"
        )
        for index, layer in enumerate(layers)
        if layer.attention is None and layer.mlp is not None
    }
