"""A norm and a product as one call are the two in turn, on a CPU and in a GPU's kernels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from quire.kernels.reference.activation import ACTIVATIONS
from quire.layers.linear import GPUProduct, PlainProduct, Product
from quire.layers.norm import Norm, build_norm
from quire.layers.normed import normed_gate, normed_product
from quire.layers.spec import Activation, LayerNormSpec, NormSpec, RMSNormSpec
from tests.unit.kernels.twins import DEVICE, assert_close, random
from tests.unit.layers.readers import MemoryReader

NORMS = [
    RMSNormSpec(size=20, eps=1e-3),
    RMSNormSpec(size=20, eps=1e-3, weight_offset=1.0),
    LayerNormSpec(size=20, eps=1e-3),
]


def _norm(spec: NormSpec) -> Norm:
    norm = build_norm(spec)
    reader = MemoryReader.random(spec.parameters(), "n")
    reader.tensors = {name: value.to(DEVICE) for name, value in reader.tensors.items()}
    reader.device = DEVICE
    norm.load(reader, "n")
    return norm


def _products(bias: bool) -> list[Product]:
    weight, shift = random(32, 20), random(32) if bias else None
    return [PlainProduct(weight, shift), GPUProduct(weight, shift)]


@pytest.mark.parametrize("spec", NORMS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_lines", [1, 9])
def test_normed_product(spec: NormSpec, bias: bool, num_lines: int) -> None:
    norm, h = _norm(spec), random(num_lines, 20)
    before = h.clone()
    for product in _products(bias):
        assert_close(normed_product(norm, product)(h), product(norm(h)))
    assert torch.equal(h, before)


@pytest.mark.parametrize("num_lines", [1, 9])
def test_without_a_norm(num_lines: int) -> None:
    h = random(num_lines, 20)
    for product in _products(bias=True):
        assert_close(normed_product(None, product)(h), product(h))
        gate, up = product(h).chunk(2, dim=1)
        found = normed_gate(None, product, "silu", DEVICE)(h)
        assert_close(found, ACTIVATIONS["silu"](gate) * up)


@pytest.mark.parametrize("spec", NORMS)
@pytest.mark.parametrize("activation", ["silu", "relu"])
@pytest.mark.parametrize("num_lines", [1, 9])
def test_normed_gate(spec: NormSpec, activation: Activation, num_lines: int) -> None:
    norm, h = _norm(replace(spec, eps=1e-5)), random(num_lines, 20)
    for product in _products(bias=True):
        gate, up = product(norm(h)).chunk(2, dim=1)
        found = normed_gate(norm, product, activation, DEVICE)(h)
        assert_close(found, ACTIVATIONS[activation](gate) * up)


@pytest.mark.parametrize(("num_lines", "is_special"), [(1, False), (2, True), (9, False)])
def test_gates_go_to_the_kernels_that_they_suit(
    num_lines: int, is_special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Two:
        def suits(self, lines: int) -> bool:
            return lines == 2

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return x + 100

    monkeypatch.setattr("quire.layers.normed.more_lines", lambda *_: Two())
    norm, h = _norm(NORMS[0]), random(num_lines, 20)
    product = GPUProduct(random(32, 20), None, gated=True)
    found = normed_gate(norm, product, "silu", DEVICE)(h)
    gate, up = product(norm(h)).chunk(2, dim=1)
    assert_close(found, norm(h) + 100 if is_special else ACTIVATIONS["silu"](gate) * up)
