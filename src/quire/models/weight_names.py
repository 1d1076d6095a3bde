"""Weight map entries that many families share, and Llama's weight names.

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
# What old checkpoints hold besides the weights: rotary angles, slopes of ALiBi, causal masks.
_LEFTOVERS = (
    *("*.inv_freq", "*relative_pe.slopes"),
    *("*attn.bias", "*attn.masked_bias", "*attention.bias", "*attention.masked_bias"),
)

# Parts of a layer, our name -> theirs, in codebases whose names many families took over.
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

    ``turned`` says that the matrices are stored as (in, out).
    """
    return {
        f"layers.*.{ours}.{kind}": tensor
        for ours, theirs in names.items()
        for kind, tensor in _weight_and_bias(f"{prefix}.{theirs}", turned).items()
    }


def fused_qkv(
    name: str, attention: AttentionSpec, layout: str = "concatenated", *, turned: bool = False
) -> Entries:
    """Entries of q, k and v, cut from ``name``.weight and ``name``.bias; see `FusedHeads`."""
    heads = (attention.num_heads, attention.num_kv_heads, attention.head_dim)
    return {
        f"layers.*.attention.{part.part}.{kind}": part
        for kind, whole in _weight_and_bias(name, turned).items()
        for part in FusedHeads.split(whole, *heads, layout)
    }


def fused_gate_up(name: str, inner_size: int, order: tuple[str, str] = ("gate", "up")) -> Entries:
    """Entries of gate and up, the halves (in ``order``) of ``name``.weight and ``name``.bias."""
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
    """A family's weight map: ``entries`` name the layers' tensors, the other arguments the
    embedding, final norm and head (default: GPT-2's names).

    Each name is looked up under every one of ``prefixes``, since checkpoints saved from a model's
    inner class lack the first. The names given here contain ``optional_prefix``, which a
    checkpoint may lack in all of them.
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
    """Llama's weight map with ``names`` replacing those parts of a layer, plus ``more`` entries."""
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

# A model reads only the tensors of its spec; the other entries do no harm.
LLAMA_WEIGHTS = weight_map(
    layer_entries("model.layers.*", _LLAMA_LAYER),
    embedding="model.embed_tokens",
    final_norm="model.norm",
    prefixes=("",),
    optional_prefix="model.",
)
