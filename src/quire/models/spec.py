"""The spec of a whole decoder: a tree of parts, and what can be derived without building it.

Knows nothing about Hugging Face, files or devices. Imports no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from quire.kv_layout import KVLayout, LayerKV
from quire.layers.mla_spec import MLASpec
from quire.layers.moe_spec import MoESpec
from quire.layers.spec import (
    AttentionSpec,
    EmbeddingSpec,
    GatedMLPSpec,
    HeadSpec,
    NormSpec,
    PlainMLPSpec,
    RopeSpec,
    Shapes,
    under,
)

# How a layer is wired, with its norms in the order in which they are listed:
#   pre_norm         h += attention(norm1(h)); h += mlp(norm2(h)); a missing part brings no norm
#   parallel         h += attention(norm1(h)) + mlp(norm2(h)), or norm1 for both
#   post_norm        h = norm1(h + attention(h)); h = norm2(h + mlp(h))
#   branch_norm      h += norm1(attention(h)); h += norm2(mlp(h))
#   sandwich         h += norm2(attention(norm1(h))); h += norm4(mlp(norm3(h)))
#   normed_residual  n = norm1(h); h = n + attention(n); n = norm2(h); h = n + mlp(n)
BlockKind: TypeAlias = Literal[
    "pre_norm", "parallel", "post_norm", "branch_norm", "sandwich", "normed_residual"
]


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerSpec:
    """One layer: how its parts are wired (``block``), and the parts."""

    block: BlockKind
    attention: AttentionSpec | MLASpec | None
    mlp: GatedMLPSpec | PlainMLPSpec | MoESpec | None
    norms: tuple[NormSpec, ...]  # in the order in which the block uses them
    residual_scale: float = 1.0  # of what attention and MLP add to the hidden state

    @property
    def mlp_prefix(self) -> str:
        return "moe" if isinstance(self.mlp, MoESpec) else "mlp"

    def parameters(self) -> Shapes:
        shapes: Shapes = {}
        if self.attention is not None:
            shapes |= under("attention", self.attention.parameters())
        if self.mlp is not None:
            shapes |= under(self.mlp_prefix, self.mlp.parameters())
        for number, norm in enumerate(self.norms, start=1):
            shapes |= under(f"norm{number}", norm.parameters())
        return shapes


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSpec:
    """A causal language model."""

    embedding: EmbeddingSpec
    layers: tuple[LayerSpec, ...]  # each layer stands for itself, so that layers may differ
    final_norm: NormSpec | None
    head: HeadSpec

    @property
    def kv_layout(self) -> KVLayout:
        return KVLayout.of(
            tuple(
                LayerKV(
                    num_kv_heads=layer.attention.num_kv_heads,
                    head_dim=layer.attention.head_dim,
                    window=layer.attention.window,
                    has_values=not isinstance(layer.attention, MLASpec),
                )
                for layer in self.layers
                if layer.attention is not None
            )
        )

    @property
    def ropes(self) -> tuple[RopeSpec, ...]:
        """The different rotary positions of the layers."""
        attentions = (layer.attention for layer in self.layers if layer.attention is not None)
        positions = (attention.positions for attention in attentions)
        return tuple(dict.fromkeys(spec for spec in positions if isinstance(spec, RopeSpec)))

    def parameters(self) -> Shapes:
        """Canonical name -> shape of every tensor; a tied head has none of its own."""
        shapes = under("embedding", self.embedding.parameters())
        for index, layer in enumerate(self.layers):
            shapes |= under(f"layers.{index}", layer.parameters())
        if self.final_norm is not None:
            shapes |= under("final_norm", self.final_norm.parameters())
        return shapes | under("head", self.head.parameters())

    @property
    def num_parameters(self) -> int:
        return sum(math.prod(shape) for shape in self.parameters().values())
