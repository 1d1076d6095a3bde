"""Hopper's products equal torch's, with the gate or the addition after them. They need the GPU."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cuda.product import HopperProduct, unavailable, why_not
from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.triton.activation import NAMES
from tests.unit.kernels.twins import assert_close, random

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

# (n, k): whole tiles; a last tile of few columns and of few values of k; K shared out; one strip.
SHAPES = [(1024, 512), (1000, 1096), (256, 4096), (32, 64)]
LINES = (2, 63, 64, 65, 100, 128, 129, 200, 256)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


def weights(n: int, k: int, dtype: torch.dtype, bias: bool) -> tuple[Tensor, Tensor | None]:
    return (random(n, k) / k**0.5).to(dtype), random(n, dtype=dtype) if bias else None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_torchs_linear(dtype: torch.dtype, n: int, k: int, bias: bool) -> None:
    weight, shift = weights(n, k, dtype, bias)
    product = HopperProduct(weight, shift)
    for lines in LINES:
        x, h = random(lines, k, dtype=dtype), random(lines, n, dtype=dtype)
        assert_close(product(x), linear(x, weight, shift))
        wanted = h.double() + linear(x, weight, shift)
        product.add_to(x, h)
        assert_close(h, wanted)


@pytest.mark.parametrize(("n", "k"), SHAPES[1:3])
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.bfloat16) for name in NAMES), ("silu", torch.float16)]
)
def test_gated_products(name: str, dtype: torch.dtype, n: int, k: int) -> None:
    weight, shift = weights(2 * n, k, dtype, True)
    product = HopperProduct(weight, shift, NAMES.index(name))
    for lines in (*LINES, 512, 4000):
        x = random(lines, k, dtype=dtype)
        assert_close(product(x), gated_activation(linear(x, weight, shift), ACTIVATIONS[name]))


def test_large_and_odd_values_are_gated_without_a_nan() -> None:
    weight = torch.eye(64, device="cuda", dtype=torch.bfloat16).repeat(2, 1)
    x = torch.full((8, 64), 300.0, device="cuda", dtype=torch.bfloat16)
    x[::2] = -300.0
    for kind, name in enumerate(NAMES):
        found = HopperProduct(weight, None, kind)(x)
        wanted = gated_activation(linear(x, weight, None), ACTIVATIONS[name])
        torch.testing.assert_close(found.double(), wanted, rtol=1e-2, atol=1e-6)


def test_lines_with_gaps_and_at_odd_places() -> None:
    weight, _ = weights(256, 128, torch.bfloat16, False)
    wide = random(70, 300, dtype=torch.bfloat16)
    product = HopperProduct(weight, None)
    for x in (wide[:, 8:136], wide[:, 3:131], wide.T[:128].T):
        assert_close(product(x), linear(x, weight, None))


def test_the_same_lines_have_the_same_products_whatever_is_beside_them() -> None:
    weight, _ = weights(1024, 2048, torch.bfloat16, False)
    product = HopperProduct(weight, None)
    x = random(256, 2048, dtype=torch.bfloat16)
    assert torch.equal(product(x)[:130], product(x[:130]))
    assert torch.equal(product(x), product(x))


def test_a_graph_replays_products_that_follow_each_other() -> None:
    first, _ = weights(512, 256, torch.bfloat16, False)
    second, _ = weights(256, 512, torch.bfloat16, False)
    one, two = HopperProduct(first, None), HopperProduct(second, None)
    x = random(96, 256, dtype=torch.bfloat16)

    def chain() -> Tensor:
        h = x.clone()
        for _ in range(4):
            two.add_to(one(h), h)
        return h

    wanted = chain()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = chain()
    for _ in range(20):
        found.zero_()
        graph.replay()
        assert torch.equal(found, wanted)


def test_reasons_against_a_weight() -> None:
    good = torch.zeros(64, 64, device="cuda", dtype=torch.bfloat16)
    assert why_not(good, gated=True) is None
    assert "float32" in str(why_not(good.float(), gated=False))
    assert "64 x 63" in str(why_not(good[:, :63].contiguous(), gated=False))
    assert "60 x 64" in str(why_not(good[:60], gated=False))
    assert "contiguous" in str(why_not(good.T, gated=False))
