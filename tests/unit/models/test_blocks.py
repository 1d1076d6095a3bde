"""Every wiring of a layer equals its formula, also where some tokens go on behind their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.layers.mlp import PlainMLP
from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from quire.layers.norm import Norm, build_norm
from quire.layers.spec import GatedMLPSpec, LayerNormSpec, PlainMLPSpec, RMSNormSpec
from quire.models.blocks import Block, build_block, build_mlp
from quire.models.spec import BlockKind, LayerSpec
from quire.weights.reader import TensorReader
from tests.unit.layers.readers import MemoryReader

_SIZE = 6
_MLP = PlainMLPSpec(hidden_size=_SIZE, inner_size=8, activation="silu")
_NORMS = (
    *(RMSNormSpec(size=_SIZE, eps=eps) for eps in (1e-1, 1e-2, 1e-3)),
    LayerNormSpec(size=_SIZE, eps=1e-2),
)
Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """What a layer is told of the pass."""

    kept: tuple[int, ...] = tuple(range(5))  # the tokens that go on
    factor: float = 3.0

    def narrowed(self, x: Tensor) -> Tensor:
        return x[list(self.kept)]


class FakeAttention:
    """Each token gets the one before it, times a number of the step."""

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        assert prefix == "l.attention"
        self._norm: Map = norm or (lambda x: x)

    def branch(self, h: Tensor, step: Any) -> Tensor:
        return step.narrowed(step.factor * self._norm(h).roll(1, 0))

    def add_to(self, h: Tensor, step: Any, target: Tensor) -> None:
        target += self.branch(h, step)


class Case:
    """A loaded layer, and its parts as functions to write formulas with."""

    def __init__(self, spec: LayerSpec) -> None:
        self.reader = MemoryReader.random(replace(spec, attention=None).parameters(), "l")
        self.block: Block = build_block(spec, FakeAttention())
        self.block.load(self.reader, "l")
        self.norms = [self._norm(number) for number in range(1, len(spec.norms) + 1)]
        mlp = PlainMLP(_MLP)
        mlp.load(self.reader, "l.mlp", None)
        self.mlp: Map = mlp.branch
        self.attention: Map = lambda x: 3.0 * x.roll(1, 0)

    def _norm(self, number: int) -> Map:
        norm = build_norm(_NORMS[number - 1])
        norm.load(self.reader, f"l.norm{number}")
        return norm

    def check(self, wanted: Callable[[Tensor], Tensor]) -> None:
        h = torch.randn(5, _SIZE, generator=torch.Generator().manual_seed(7))
        expected = wanted(h.clone())
        for step in (Step(), Step(kept=(3, 1)), Step(kept=(4,))):
            found = self.block(h.clone(), _as_pass(step))
            torch.testing.assert_close(found, step.narrowed(expected))


def _as_pass(step: Step) -> Any:  # a block asks no more of it
    return step


def _layer(block: BlockKind, num_norms: int, scale: float = 1.0) -> LayerSpec:
    attention: Any = object()  # the block is handed the part itself
    return LayerSpec(
        block=block,
        attention=attention,
        mlp=_MLP,
        norms=_NORMS[:num_norms],
        residual_scale=scale,
    )


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_pre_norm(scale: float) -> None:
    case = Case(_layer("pre_norm", 2, scale))
    norm1, norm2 = case.norms

    def wanted(h: Tensor) -> Tensor:
        h = h + scale * case.attention(norm1(h))
        return h + scale * case.mlp(norm2(h))

    case.check(wanted)


@pytest.mark.parametrize("num_norms", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_parallel(num_norms: int, scale: float) -> None:
    case = Case(_layer("parallel", num_norms, scale))
    norm1, norm2 = case.norms[0], case.norms[-1]
    case.check(lambda h: h + scale * (case.attention(norm1(h)) + case.mlp(norm2(h))))


def test_post_norm() -> None:
    case = Case(_layer("post_norm", 2))
    norm1, norm2 = case.norms

    def wanted(h: Tensor) -> Tensor:
        h = norm1(h + case.attention(h))
        return norm2(h + case.mlp(h))

    case.check(wanted)


def test_branch_norm() -> None:
    case = Case(_layer("branch_norm", 2))
    norm1, norm2 = case.norms

    def wanted(h: Tensor) -> Tensor:
        h = h + norm1(case.attention(h))
        return h + norm2(case.mlp(h))

    case.check(wanted)


def test_sandwich() -> None:
    case = Case(_layer("sandwich", 4))
    norm1, norm2, norm3, norm4 = case.norms

    def wanted(h: Tensor) -> Tensor:
        h = h + norm2(case.attention(norm1(h)))
        return h + norm4(case.mlp(norm3(h)))

    case.check(wanted)


def test_normed_residual() -> None:
    case = Case(_layer("normed_residual", 2))
    norm1, norm2 = case.norms

    def wanted(h: Tensor) -> Tensor:
        normed = norm1(h)
        h = normed + case.attention(normed)
        normed = norm2(h)
        return normed + case.mlp(normed)

    case.check(wanted)


def _loaded(spec: LayerSpec, attention: FakeAttention | None) -> tuple[Block, MemoryReader]:
    block = build_block(spec, attention)
    reader = MemoryReader.random(replace(spec, attention=None).parameters(), "l")
    block.load(reader, "l")
    return block, reader


def test_layer_without_attention_or_mlp_keeps_the_other_with_its_one_norm() -> None:
    h = torch.randn(5, _SIZE)
    spec = _layer("pre_norm", 1)
    block, reader = _loaded(replace(spec, attention=None), None)
    norm = build_norm(_NORMS[0])
    norm.load(reader, "l.norm1")
    mlp = PlainMLP(_MLP)
    mlp.load(reader, "l.mlp", norm)
    expected = h + mlp.branch(h)
    torch.testing.assert_close(block(h.clone(), _as_pass(Step())), expected)
    narrow = _as_pass(Step(kept=(2, 0)))
    torch.testing.assert_close(block(h.clone(), narrow), expected[[2, 0]])

    block, reader = _loaded(replace(spec, mlp=None), FakeAttention())
    norm.load(reader, "l.norm1")
    expected = h + 3.0 * norm(h).roll(1, 0)
    torch.testing.assert_close(block(h.clone(), _as_pass(Step())), expected)
    narrow = _as_pass(Step(kept=(2, 0)))
    torch.testing.assert_close(block(h.clone(), narrow), expected[[2, 0]])


def test_layer_without_parts_changes_nothing_and_reads_nothing() -> None:
    spec = LayerSpec(block="pre_norm", attention=None, mlp=None, norms=())
    block, reader = _loaded(spec, None)
    assert reader.tensors == {}
    h = torch.randn(5, _SIZE)
    before = h.clone()
    assert torch.equal(block(h, _as_pass(Step())), before)
    assert torch.equal(block(h, _as_pass(Step(kept=(2, 0)))), before[[2, 0]])


@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize(
    "spec",
    [
        _MLP,
        GatedMLPSpec(hidden_size=_SIZE, inner_size=10, activation="gelu", bias=True),
        MoESpec(
            hidden_size=_SIZE,
            inner_size=10,
            num_experts=4,
            top_k=2,
            activation="silu",
            routing=SoftmaxRouting(renormalise=True),
        ),
    ],
    ids=["plain", "gated", "mixture"],
)
def test_what_a_branch_returns_is_what_it_adds(spec: Any, has_norm: bool) -> None:
    mlp = build_mlp(spec)
    reader = MemoryReader.random(spec.parameters(), "m")
    norm = build_norm(_NORMS[0])
    norm.load(MemoryReader.random(_NORMS[0].parameters(), "n"), "n")
    mlp.load(reader, "m", norm if has_norm else None)
    h = torch.randn(5, _SIZE)
    before = h.clone()
    added = mlp.branch(h)
    assert torch.equal(h, before)
    mlp.add_to(h)
    torch.testing.assert_close(h, before + added)
    bare = build_mlp(spec)
    bare.load(reader, "m", None)
    torch.testing.assert_close(bare.branch(norm(before) if has_norm else before), added)
