"""How a layer's parts are wired: one class per topology.

Between layers there is one tensor, the hidden state h [T, E], which every layer updates in place;
after its keys and values the last layer goes on with the output rows only (`ForwardPass.narrowed`).
Knows the kinds of parts that a layer may have, and not what is in them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from quire.layers.forward_pass import ForwardPass
from quire.layers.mlp import GatedMLP, PlainMLP
from quire.layers.moe import MoE
from quire.layers.moe_spec import MoESpec
from quire.layers.norm import Norm, build_norm
from quire.layers.spec import GatedMLPSpec, PlainMLPSpec
from quire.models.spec import BlockKind, LayerSpec
from quire.weights.reader import TensorReader


class Block(Protocol):
    """One layer."""

    def load(self, reader: TensorReader, prefix: str) -> None: ...

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        """h [T, E] updated in place; the last layer returns the output rows [S, E] only."""
        ...


class Mixer(Protocol):
    """The branch of a layer that mixes tokens: attention of some kind."""

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        """``norm``: what its input goes through first; loaded."""
        ...

    def add_to(self, h: Tensor, step: ForwardPass, target: Tensor) -> None:
        """target += branch(h, step), in place; ``target`` may be h."""
        ...

    def branch(self, h: Tensor, step: ForwardPass) -> Tensor:
        """Attention of norm(h) for the output tokens; h holds all tokens of the step."""
        ...


class FeedForward(Protocol):
    """The branch of a layer that treats each token alone."""

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        """``norm``: what its input goes through first; loaded."""
        ...

    def add_to(self, h: Tensor) -> None:
        """h += branch(h), in place."""
        ...

    def branch(self, h: Tensor) -> Tensor:
        """The feed-forward of norm(h)."""
        ...


def build_block(spec: LayerSpec, attention: Mixer | None) -> Block:
    """The layer around its attention; a missing part is replaced by one that adds nothing."""
    if attention is None and spec.mlp is None:
        return EmptyBlock()
    assert spec.block == "pre_norm" or (attention and spec.mlp), "only pre_norm can lack a part"
    mlp = None if spec.mlp is None else build_mlp(spec.mlp)
    if spec.residual_scale != 1.0:
        attention = attention and ScaledMixer(attention, spec.residual_scale)
        mlp = mlp and ScaledFeedForward(mlp, spec.residual_scale)
    parts = Parts(
        attention=attention or Nothing(),
        mlp=mlp or Nothing(),
        mlp_prefix=spec.mlp_prefix,
        norms=tuple(build_norm(norm) for norm in spec.norms),
    )
    return BLOCKS[spec.block](parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a block wires together."""

    attention: Mixer
    mlp: FeedForward
    mlp_prefix: str
    norms: tuple[Norm, ...]  # in the order of the spec

    def load(
        self, reader: TensorReader, prefix: str, *, attention: Norm | None, mlp: Norm | None
    ) -> None:
        """Load all parts; ``attention`` and ``mlp`` are the norms of their inputs, if any."""
        for number, norm in enumerate(self.norms, start=1):
            norm.load(reader, f"{prefix}.norm{number}")
        self.attention.load(reader, f"{prefix}.attention", attention)
        self.mlp.load(reader, f"{prefix}.{self.mlp_prefix}", mlp)

    def load_pre_normed(self, reader: TensorReader, prefix: str) -> None:
        """Load all parts; the first norm precedes attention and the last one the MLP.

        A single norm serves both, computed twice since each product may fuse it, or the only part.
        """
        self.load(reader, prefix, attention=self.norms[0], mlp=self.norms[-1])


class PreNormBlock:
    """h += attention(norm1(h)); h += mlp(norm2(h))."""

    def __init__(self, parts: Parts) -> None:
        self.attention, self.mlp = parts.attention, parts.mlp
        self._parts = parts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._parts.load_pre_normed(reader, prefix)

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        out = step.narrowed(h)
        self.attention.add_to(h, step, out)
        self.mlp.add_to(out)
        return out


class ParallelBlock:
    """h += attention(norm1(h)) + mlp(norm2(h)), or norm1 for both."""

    def __init__(self, parts: Parts) -> None:
        self.attention, self.mlp = parts.attention, parts.mlp
        self._parts = parts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._parts.load_pre_normed(reader, prefix)

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        attended = self.attention.branch(h, step)
        out = step.narrowed(h)
        self.mlp.add_to(out)
        out += attended
        return out


class PostNormBlock:
    """h = norm1(h + attention(h)); h = norm2(h + mlp(h))."""

    def __init__(self, parts: Parts) -> None:
        self.attention, self.mlp = parts.attention, parts.mlp
        self._norm1, self._norm2 = parts.norms
        self._parts = parts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._parts.load(reader, prefix, attention=None, mlp=None)

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        out = step.narrowed(h)
        self.attention.add_to(h, step, out)
        out = self._norm1(out)
        self.mlp.add_to(out)
        return self._norm2(out)


class BranchNormBlock:
    """h += norm1(attention(h)); h += norm2(mlp(h))."""

    def __init__(self, parts: Parts) -> None:
        self.attention, self.mlp = parts.attention, parts.mlp
        self._norm1, self._norm2 = parts.norms
        self._parts = parts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._parts.load(reader, prefix, attention=None, mlp=None)

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        out = step.narrowed(h)
        out += self._norm1(self.attention.branch(h, step))
        out += self._norm2(self.mlp.branch(out))
        return out


class SandwichBlock:
    """h += norm2(attention(norm1(h))); h += norm4(mlp(norm3(h)))."""

    def __init__(self, parts: Parts) -> None:
        self.attention, self.mlp = parts.attention, parts.mlp
        self._norm1, self._norm2, self._norm3, self._norm4 = parts.norms
        self._parts = parts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._parts.load(reader, prefix, attention=self._norm1, mlp=self._norm3)

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        out = step.narrowed(h)
        out += self._norm2(self.attention.branch(h, step))
        out += self._norm4(self.mlp.branch(out))
        return out


class NormedResidualBlock:
    """n = norm1(h); h = n + attention(n); n = norm2(h); h = n + mlp(n)."""

    def __init__(self, parts: Parts) -> None:
        self.attention, self.mlp = parts.attention, parts.mlp
        self._norm1, self._norm2 = parts.norms
        self._parts = parts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._parts.load(reader, prefix, attention=None, mlp=None)

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        h = self._norm1(h)
        out = step.narrowed(h)
        self.attention.add_to(h, step, out)
        out = self._norm2(out)
        self.mlp.add_to(out)
        return out


BLOCKS: dict[BlockKind, Callable[[Parts], Block]] = {
    "pre_norm": PreNormBlock,
    "parallel": ParallelBlock,
    "post_norm": PostNormBlock,
    "branch_norm": BranchNormBlock,
    "sandwich": SandwichBlock,
    "normed_residual": NormedResidualBlock,
}


class EmptyBlock:
    """A layer without parts."""

    def load(self, reader: TensorReader, prefix: str) -> None:
        pass

    def __call__(self, h: Tensor, step: ForwardPass) -> Tensor:
        return step.narrowed(h)


class Nothing:
    """Stands for attention or an MLP that a layer does not have."""

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        pass

    def add_to(self, *operands: Tensor | ForwardPass) -> None:
        pass

    def branch(self, *operands: Tensor | ForwardPass) -> Tensor:
        raise AssertionError("blocks that may lack a part only add it")


class ScaledMixer:
    """Another mixer's branch times a constant."""

    def __init__(self, mixer: Mixer, scale: float) -> None:
        self._mixer = mixer
        self._scale = scale

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        self._mixer.load(reader, prefix, norm)

    def add_to(self, h: Tensor, step: ForwardPass, target: Tensor) -> None:
        target.add_(self._mixer.branch(h, step), alpha=self._scale)

    def branch(self, h: Tensor, step: ForwardPass) -> Tensor:
        return self._mixer.branch(h, step).mul_(self._scale)


class ScaledFeedForward:
    """Another feed-forward's branch times a constant."""

    def __init__(self, mlp: FeedForward, scale: float) -> None:
        self._mlp = mlp
        self._scale = scale

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        self._mlp.load(reader, prefix, norm)

    def add_to(self, h: Tensor) -> None:
        h.add_(self._mlp.branch(h), alpha=self._scale)

    def branch(self, h: Tensor) -> Tensor:
        return self._mlp.branch(h).mul_(self._scale)


class MixtureBranch:
    """h += moe(norm(h))."""

    def __init__(self, spec: MoESpec) -> None:
        self.moe = MoE(spec)
        self._norm: Callable[[Tensor], Tensor]

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        self.moe.load(reader, prefix)
        self._norm = norm or torch.clone  # experts read while they add: not from the same memory

    def add_to(self, h: Tensor) -> None:
        self.moe.add_to(self._norm(h), h)

    def branch(self, h: Tensor) -> Tensor:
        added = torch.zeros_like(h)
        self.moe.add_to(self._norm(h), added)
        return added


def build_mlp(spec: GatedMLPSpec | PlainMLPSpec | MoESpec) -> FeedForward:
    if isinstance(spec, MoESpec):
        return MixtureBranch(spec)
    return GatedMLP(spec) if isinstance(spec, GatedMLPSpec) else PlainMLP(spec)
