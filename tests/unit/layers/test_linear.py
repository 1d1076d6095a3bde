"""A merged product equals its parts' products, packed or plain, in every dtype."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from quire.kernels.cpu import onednn
from quire.layers.linear import GPUProduct, Linear, PlainProduct, fastest_product
from quire.layers.spec import linear_shapes
from tests.unit.kernels.twins import random
from tests.unit.layers.readers import MemoryReader


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_tokens", [0, 1, 3, 70])
def test_parts_are_products_of_one_input(bias: bool, num_tokens: int) -> None:
    sizes = {"q": 6, "k": 3, "v": 5}
    shapes = {}
    for name, size in sizes.items():
        shapes |= linear_shapes(name, size, 7, bias)
    reader = MemoryReader.random(shapes, "layers.0.attention")
    linear = Linear(7, sizes, bias=bias)
    linear.load(reader, "layers.0.attention")
    x = torch.randn(num_tokens, 7)
    expected = [
        F.linear(
            x,
            reader.tensors[f"layers.0.attention.{name}.weight"],
            reader.tensors.get(f"layers.0.attention.{name}.bias"),
        )
        for name in sizes
    ]
    product = torch.cat(expected, dim=1)
    torch.testing.assert_close(linear(x), product)
    h = torch.randn_like(product)
    wanted = h + product
    linear.add_to(x, h)
    torch.testing.assert_close(h, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_fastest_product_equals_the_plain_one(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(33, 20, generator=generator).to(dtype)
    bias = torch.randn(33, generator=generator).to(dtype)
    x = torch.randn(9, 40, generator=generator).to(dtype)[:, 11:31]
    got = fastest_product(weight, bias)(x)
    assert got.dtype == dtype
    torch.testing.assert_close(got, PlainProduct(weight, bias)(x))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("num_lines", [1, 2, 9])
def test_a_gpus_product_equals_the_plain_one_for_one_line_and_many(
    bias: bool, num_lines: int
) -> None:
    weight, x, h = random(33, 20), random(num_lines, 20), random(num_lines, 33)
    shift = random(33) if bias else None
    product, plain = GPUProduct(weight, shift), PlainProduct(weight, shift)
    torch.testing.assert_close(product(x), plain(x))
    wanted = h + plain(x)
    product.add_to(x, h)
    torch.testing.assert_close(h, wanted)


class _TwoToFour:
    """Stands for kernels that suit 2 to 4 lines: their products are marked by a hundred more."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def suits(self, lines: int) -> bool:
        return 2 <= lines <= 4

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight) + 100

    def add_to(self, x: torch.Tensor, h: torch.Tensor) -> None:
        h += self(x)


@pytest.mark.parametrize(
    ("num_lines", "is_special"), [(1, False), (2, True), (4, True), (5, False)]
)
def test_lines_go_to_the_kernels_that_they_suit(
    num_lines: int, is_special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.layers.linear.more_lines", lambda weight, *_: _TwoToFour(weight))
    weight, x = random(33, 20), random(num_lines, 20)
    product = GPUProduct(weight, None)
    wanted = F.linear(x, weight) + (100 if is_special else 0)
    torch.testing.assert_close(product(x), wanted)
    h = torch.zeros_like(wanted)
    product.add_to(x, h)
    torch.testing.assert_close(h, wanted)
    torch.testing.assert_close(GPUProduct(weight, None, gated=True)(x), F.linear(x, weight))


@pytest.mark.parametrize("num_lines", [1, 16, 17, 33, 250])
def test_a_packed_product_has_the_lines_it_was_given(num_lines: int) -> None:
    weight, bias, x, h = random(33, 20), random(33), random(num_lines, 20), random(num_lines, 33)
    packed, wanted = onednn.PackedLinear(weight, bias), F.linear(x, weight, bias)
    torch.testing.assert_close(packed(x), wanted)
    wanted = wanted + h
    packed.add_to(x, h)
    torch.testing.assert_close(h, wanted)


def test_packed_products_of_all_sizes_have_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = onednn.PackedLinear(random(33, 20), None)
    shapes: set[torch.Size] = set()
    multiply = packed._product

    def spy(x: torch.Tensor) -> torch.Tensor:
        shapes.add(x.shape)
        return multiply(x)

    monkeypatch.setattr(packed, "_product", spy)
    assert [len(packed(random(num_lines, 20))) for num_lines in range(1, 65)] == [*range(1, 65)]
    assert len(shapes) == 16 + 2 * 8


def test_packing_gives_reasons_against_it() -> None:
    assert "cuda" in onednn.why_not("cuda", torch.bfloat16)[0]
    assert "float16" in onednn.why_not("cpu", torch.float16)[0]
    assert onednn.why_not("cpu", torch.float32) == []
