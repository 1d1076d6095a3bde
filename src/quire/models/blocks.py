"""How a layer's parts are wired: one class per topology, each with its own short call.

Between layers the hidden state is kept as two tensors whose sum it is: ``x``, the newest part, and
``residual``, the rest, so that the addition can be fused with the norm that follows it.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quire.layers.attention import Attention
from quire.layers.forward_pass import ForwardPass
from quire.layers.mlp import GatedMLP, PlainMLP
from quire.layers.moe import MoE
from quire.layers.norm import build_norm
from quire.layers.spec import GatedMLPSpec, MoESpec, PlainMLPSpec
from quire.models.spec import BlockKind, LayerSpec
from quire.weights.reader import TensorReader


class Block(Protocol):
    """One layer."""

    def load(self, reader: TensorReader, prefix: str) -> None: ...

    def __call__(self, x: Tensor, residual: Tensor, step: ForwardPass) -> Tensor:
        """The new x; ``residual`` is updated in place. All are [T, E]."""
        ...


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
        self.attention.load(reader, f"{prefix}.attention")
        self.norm2.load(reader, f"{prefix}.norm2")
        self.mlp.load(reader, f"{prefix}.{self._mlp_prefix}")

    def __call__(self, x: Tensor, residual: Tensor, step: ForwardPass) -> Tensor:
        x = self.attention(self.norm1.after_add(x, residual), step)
        return self.mlp(self.norm2.after_add(x, residual))


BLOCKS: dict[BlockKind, type[PreNormBlock]] = {"pre_norm": PreNormBlock}


def build_mlp(spec: GatedMLPSpec | PlainMLPSpec | MoESpec) -> GatedMLP | PlainMLP | MoE:
    if isinstance(spec, MoESpec):
        return MoE(spec)
    return GatedMLP(spec) if isinstance(spec, GatedMLPSpec) else PlainMLP(spec)
