"""Entries of weight maps that many families write alike. Knows no family. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from quire.layers.spec import AttentionSpec
from quire.models.common import LLAMA_WEIGHTS
from quire.weights.weight_map import Fused, FusedHeads, Operation, Source, WeightMap

Entries = dict[str, Operation]
KINDS = ("weight", "bias")


def layer_entries(prefix: str, names: Mapping[str, str]) -> Entries:
    """Weights and biases of a layer's parts: our name -> theirs below ``prefix``, such as "h.*"."""
    return {
        f"layers.*.{ours}.{kind}": Source(f"{prefix}.{theirs}.{kind}")
        for ours, theirs in names.items()
        for kind in KINDS
    }


def model_entries(*, embedding: str, final_norm: str, head: str = "lm_head") -> Entries:
    """What stands before and after the layers, by the hub's names."""
    return {
        "embedding.weight": Source(f"{embedding}.weight"),
        **{f"final_norm.{kind}": Source(f"{final_norm}.{kind}") for kind in KINDS},
        **{f"head.{kind}": Source(f"{head}.{kind}") for kind in KINDS},
    }


def fused_qkv(name: str, attention: AttentionSpec, layout: str = "concatenated") -> Entries:
    """q, k and v out of the tensors ``name``.weight and ``name``.bias; see `FusedHeads`."""
    heads = (attention.num_heads, attention.num_kv_heads, attention.head_dim)
    return {
        f"layers.*.attention.{part}.{kind}": operation
        for kind in KINDS
        for part, operation in zip(
            "qkv", FusedHeads.split(f"{name}.{kind}", *heads, layout), strict=True
        )
    }


def fused_gate_up(name: str, inner_size: int) -> Entries:
    """gate, then up, out of the tensors ``name``.weight and ``name``.bias."""
    return {
        f"layers.*.mlp.{part}.{kind}": operation
        for kind in KINDS
        for part, operation in zip(
            ("gate", "up"), Fused.split(f"{name}.{kind}", inner_size, inner_size), strict=True
        )
    }


def llama_weights_with(names: Mapping[str, str], more: Entries | None = None) -> WeightMap:
    """Llama's names, but for these parts of a layer, and ``more`` entries as they are."""
    entries = layer_entries("model.layers.*", names)
    return replace(LLAMA_WEIGHTS, entries={**LLAMA_WEIGHTS.entries, **entries, **(more or {})})
