"""GPT-2: learned positions, layer norms, a plain MLP, weights stored as (in, out), a tied head."""

from __future__ import annotations

from dataclasses import replace

from quire.layers.spec import LearnedPositionsSpec
from quire.models.common import (
    GPT_SPELLINGS,
    decoder_from,
    layer_norm_from,
    plain_mlp_from,
    unrotated_attention_from,
)
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.spec import LayerSpec
from quire.models.weight_names import layer_entries, model_entries
from quire.weights.weight_map import Fused, Operation, Source, Transposed, WeightMap

_INERT = ("reorder_and_upcast_attn",)  # a guard against overflow in float16
_TURNED = {"attention.o": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}
_PARTS = {**_TURNED, "norm1": "ln_1", "norm2": "ln_2"}


def gpt2(hf: HFConfig) -> ModelPlan:
    hf = hf.with_spellings(**GPT_SPELLINGS)
    norm = layer_norm_from(hf)
    mlp = plain_mlp_from(hf, bias=True, inner_size=4 * norm.size, activation="gelu_new")
    scale = None if hf.bool("scale_attn_weights", True) else 1.0
    attention = unrotated_attention_from(hf, scale=scale, bias=True)
    falls = hf.bool("scale_attn_by_inverse_layer_idx", False)
    layers = [
        LayerSpec(
            block="pre_norm",
            attention=replace(attention, scale=attention.scale / (index + 1 if falls else 1)),
            mlp=mlp,
            norms=(norm, norm),
        )
        for index in range(hf.int("num_hidden_layers"))
    ]
    positions = LearnedPositionsSpec(num_positions=hf.int(("n_positions", "n_ctx"), 1024))
    spec = decoder_from(hf, layers, final_norm=norm, tied=True, positions=positions)
    hf.check_unread(_INERT)
    return ModelPlan(spec=spec, weights=_weights(norm.size))


def _weights(hidden_size: int) -> WeightMap:
    fused = "h.*.attn.c_attn"
    wholes: dict[str, Operation] = {
        "weight": Transposed(f"{fused}.weight"),
        "bias": Source(f"{fused}.bias"),
    }
    return WeightMap(
        entries={
            **model_entries(embedding="wte", final_norm="ln_f"),
            "embedding.positions.weight": Source("wpe.weight"),
            **{
                f"layers.*.attention.{part}.{kind}": piece
                for kind, whole in wholes.items()
                for part, piece in zip("qkv", Fused.split(whole, *[hidden_size] * 3), strict=True)
            },
            **layer_entries("h.*", _PARTS),
            **{
                f"layers.*.{ours}.weight": Transposed(f"h.*.{theirs}.weight")
                for ours, theirs in _TURNED.items()
            },
        },
        ignored=("*attn.bias", "*attn.masked_bias", "lm_head.weight"),
        prefixes=("transformer.", ""),
    )
