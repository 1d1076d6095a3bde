"""How a layer's parts are wired: one class per topology, each with its own short call.

Between layers there is one tensor, the hidden state h [T, E]; every branch adds to it in place.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quire.layers.attention import Attention
from quire.layers.forward_pass import ForwardPass
from quire.layers.mlp import GatedMLP, PlainMLP
from quire.layers.moe import MoE
from quire.layers.norm import Norm, build_norm
from quire.layers.spec import GatedMLPSpec, MoESpec, PlainMLPSpec
from quire.models.spec import BlockKind, LayerSpec
from quire.weights.reader import TensorReader


class Block(Protocol):
    """One layer."""

    def load(self, reader: TensorReader, prefix: str) -> None: ...

    def __call__(self, h: Tensor, step: ForwardPass) -> None:
        """Updates h [T, E] in place."""
        ...


class FeedForward(Protocol):
    """The branch of a layer that treats each token alone."""

    def load(self, reader: TensorReader, prefix: str, norm: Norm) -> None:
        """``norm``: what its input goes through first; loaded."""
        ...

    def add_to(self, h: Tensor) -> None:
        """h += feed_forward(norm(h)), in place."""
        ...


class MixtureBranch:
    """h += moe(norm(h))."""

    def __init__(self, spec: MoESpec) -> None:
        self.moe = MoE(spec)
        self._norm: Norm

    def load(self, reader: TensorReader, prefix: str, norm: Norm) -> None:
        self.moe.load(reader, prefix)
        self._norm = norm

    def add_to(self, h: Tensor) -> None:
        self.moe.add_to(self._norm(h), h)


class PreNormBlock:
    """h += attention(norm1(h)); h += mlp(norm2(h))."""

    def __init__(self, spec: LayerSpec, attention: Attention) -> None:
        norm1, norm2 = spec.norms
        self.norm1 = build_norm(norm1)
        self.norm2 = build_norm(norm2)
        self.attention = attention
        self.mlp = build_mlp(spec.mlp)
        self._mlp_prefix = spec.mlp_prefix

    def load(self, reader: TensorReader, prefix: str) -> None:
        self.norm1.load(reader, f"{prefix}.norm1")
        self.attention.load(reader, f"{prefix}.attention", self.norm1)
        self.norm2.load(reader, f"{prefix}.norm2")
        self.mlp.load(reader, f"{prefix}.{self._mlp_prefix}", self.norm2)

    def __call__(self, h: Tensor, step: ForwardPass) -> None:
        self.attention.add_to(h, step)
        self.mlp.add_to(h)


BLOCKS: dict[BlockKind, type[PreNormBlock]] = {"pre_norm": PreNormBlock}


def build_mlp(spec: GatedMLPSpec | PlainMLPSpec | MoESpec) -> FeedForward:
    if isinstance(spec, MoESpec):
        return MixtureBranch(spec)
    return GatedMLP(spec) if isinstance(spec, GatedMLPSpec) else PlainMLP(spec)
