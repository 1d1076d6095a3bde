"""The spec of a whole decoder: a tree of parts, and what follows from it without building anything.

Knows nothing about Hugging Face, files or devices. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quire.kv_layout import KVLayout, LayerKV
from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadSpec,
    MoESpec,
    NormSpec,
    PlainMLPSpec,
    RopeSpec,
    Shapes,
    under,
)

BlockKind: TypeAlias = Literal["pre_norm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """One layer: how its parts are wired (``block``), and the parts."""

    block: BlockKind
    attention: AttentionSpec
    mlp: GatedMLPSpec | PlainMLPSpec | MoESpec
    norms: tuple[NormSpec, ...]  # in the order in which the block uses them

    @property
    def mlp_prefix(self) -> str:
        return "moe" if isinstance(self.mlp, MoESpec) else "mlp"

    def parameters(self) -> Shapes:
        shapes = under("attention", self.attention.parameters())
        shapes |= under(self.mlp_prefix, self.mlp.parameters())
        for number, norm in enumerate(self.norms, start=1):
            shapes |= under(f"norm{number}", norm.parameters())
        return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpec:
    """A causal language model."""

    embedding: EmbeddingSpec
    layers: tuple[LayerSpec, ...]  # each layer stands for itself, so that layers may differ
    final_norm: NormSpec
    head: HeadSpec

    @property
    def kv_layout(self) -> KVLayout:
        return KVLayout.of(
            tuple(
                LayerKV(
                    num_kv_heads=layer.attention.num_kv_heads,
                    head_dim=layer.attention.head_dim,
                    window=layer.attention.window,
                )
                for layer in self.layers
            )
        )

    @property
    def ropes(self) -> tuple[RopeSpec, ...]:
        """The different rotary positions of the layers."""
        positions = (layer.attention.positions for layer in self.layers)
        return tuple(dict.fromkeys(spec for spec in positions if isinstance(spec, RopeSpec)))

    def parameters(self) -> Shapes:
        """Canonical name -> shape of every tensor; a tied head has none of its own."""
        shapes = under("embedding", self.embedding.parameters())
        for index, layer in enumerate(self.layers):
            shapes |= under(f"layers.{index}", layer.parameters())
        shapes |= under("final_norm", self.final_norm.parameters())
        return shapes | under("head", self.head.parameters())

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters().values())
