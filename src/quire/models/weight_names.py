"""Entries of weight maps that many families write alike, and the names that Llama gave.

Knows no other family.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from quire.layers.spec import AttentionSpec
from quire.weights.weight_map import (
    Fused,
    FusedHeads,
    Operation,
    Source,
    Transposed,
    WeightMap,
)

Entries: TypeAlias = dict[str, Operation]
# What old checkpoints hold beside the weights: rotary angles, slopes of ALiBi, causal masks.
_LEFTOVERS = (
    *("*.inv_freq", "*relative_pe.slopes"),
    *("*attn.bias", "*attn.masked_bias", "*attention.bias", "*attention.masked_bias"),
)

# Parts of a layer, ours -> theirs, as codebases named them whose names many families took over.
GPT2_PARTS = {
    "attention.o": "attn.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
    "norm1": "ln_1",
    "norm2": "ln_2",
}
MEGATRON_PARTS = {
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}


def layer_entries(prefix: str, names: Mapping[str, str], *, turned: bool = False) -> Entries:
    """Weights and biases of a layer's parts: our name -> theirs below ``prefix``, such as "h.*".

    ``turned``: their matrices are stored as (in, out).
    """
    return {
        f"layers.*.{ours}.{kind}": tensor
        for ours, theirs in names.items()
        for kind, tensor in _weight_and_bias(f"{prefix}.{theirs}", turned).items()
    }


def fused_qkv(
    name: str, attention: AttentionSpec, layout: str = "concatenated", *, turned: bool = False
) -> Entries:
    """q, k and v out of the tensors ``name``.weight and ``name``.bias; see `FusedHeads`."""
    heads = (attention.num_heads, attention.num_kv_heads, attention.head_dim)
    return {
        f"layers.*.attention.{part.part}.{kind}": part
        for kind, whole in _weight_and_bias(name, turned).items()
        for part in FusedHeads.split(whole, *heads, layout)
    }


def fused_gate_up(name: str, inner_size: int, order: tuple[str, str] = ("gate", "up")) -> Entries:
    """Both halves of the tensors ``name``.weight and ``name``.bias."""
    return {
        f"layers.*.mlp.{part}.{kind}": half
        for kind, whole in _weight_and_bias(name).items()
        for part, half in zip(order, Fused.split(whole, inner_size, inner_size), strict=True)
    }


def weight_map(
    *entries: Entries,
    embedding: str = "wte",
    positions: str = "wpe",
    final_norm: str = "ln_f",
    head: str = "lm_head",
    prefixes: tuple[str, ...] = ("transformer.", ""),
    optional_prefix: str = "",
) -> WeightMap:
    """A family's names: ``entries`` for its layers, the others for what stands around them, as
    GPT-2 has it where nothing is said.

    Names have one of the ``prefixes``: those saved from the inner class of a model lack the first.
    An ``optional_prefix`` stands in the names given here, and is one that all of them may lack.
    """
    around: Entries = {
        "embedding.weight": Source(f"{embedding}.weight"),
        "embedding.positions.weight": Source(f"{positions}.weight"),
        "final_norm.weight": Source(f"{final_norm}.weight"),
        "final_norm.bias": Source(f"{final_norm}.bias"),
        "head.weight": Source(f"{head}.weight"),
        "head.bias": Source(f"{head}.bias"),
    }
    return WeightMap(
        entries={name: tensor for some in (around, *entries) for name, tensor in some.items()},
        ignored=_LEFTOVERS,
        prefixes=prefixes,
        optional_prefix=optional_prefix,
    )


def llama_weights_with(names: Mapping[str, str], more: Entries | None = None) -> WeightMap:
    """Llama's names, but for these parts of a layer, and ``more`` entries as they are."""
    entries = layer_entries("model.layers.*", names)
    return replace(LLAMA_WEIGHTS, entries={**LLAMA_WEIGHTS.entries, **entries, **(more or {})})


def _weight_and_bias(name: str, turned: bool = False) -> Entries:
    weight = Source(f"{name}.weight")
    return {"weight": Transposed(weight) if turned else weight, "bias": Source(f"{name}.bias")}


_LLAMA_LAYER = {
    "attention.q": "self_attn.q_proj",
    "attention.k": "self_attn.k_proj",
    "attention.v": "self_attn.v_proj",
    "attention.o": "self_attn.o_proj",
    "attention.q_norm": "self_attn.q_norm",
    "attention.k_norm": "self_attn.k_norm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
}

# A family reads what its spec asks for; entries that it does not ask for do no harm.
LLAMA_WEIGHTS = weight_map(
    layer_entries("model.layers.*", _LLAMA_LAYER),
    embedding="model.embed_tokens",
    final_norm="model.norm",
    prefixes=("",),
    optional_prefix="model.",
)
