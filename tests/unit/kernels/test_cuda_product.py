"""Hopper's products equal torch's, with the gate or the addition after them.

On a Hopper GPU the kernel's; elsewhere those of a driver that stands for it and sees what it would.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cuda.availability import why_not
from quire.kernels.cuda.product import HopperProduct
from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.triton.activation import NAMES
from tests.unit.kernels.fake_driver import fake_driver
from tests.unit.kernels.twins import assert_close

IS_HOPPER = not why_not(torch.zeros(64, 64), None, gated=False)
DEVICE = "cuda" if IS_HOPPER else "cpu"

# (n, k): whole tiles; a last tile of few columns and of few values of k; K shared out; one strip;
# more tiles than there are processors.
SHAPES = [(1024, 512), (1000, 1096), (256, 4096), (32, 8), (20_000, 128)]
ROOM = 83_904  # bytes, of a block of the kernel behind
LINES = (2, 63, 64, 65, 100, 128, 129, 192, 193, 256)


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    if IS_HOPPER:
        yield
        return
    with fake_driver(monkeypatch):
        yield


def random(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def assert_near(found: Tensor, wanted: Tensor) -> None:
    """Value by value: a gate's are small nearly everywhere."""
    torch.testing.assert_close(found.double(), wanted, rtol=2e-2, atol=1e-2)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


def weights(n: int, k: int, dtype: torch.dtype, bias: bool) -> tuple[Tensor, Tensor | None]:
    return (random(n, k) / k**0.5).to(dtype), random(n, dtype=dtype) if bias else None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize(("bias", "room"), [(False, 0), (True, 0), (False, ROOM)])
def test_products_are_torchs_linear(
    dtype: torch.dtype, n: int, k: int, bias: bool, room: int
) -> None:
    weight, shift = weights(n, k, dtype, bias)
    product = HopperProduct(weight, shift, room=room)
    for lines in LINES:
        x, h = random(lines, k, dtype=dtype), random(lines, n, dtype=dtype)
        assert_close(product(x), linear(x, weight, shift))
        wanted = h.double() + linear(x, weight, shift)
        product.add_to(x, h)
        assert_close(h, wanted)


@pytest.mark.parametrize(("n", "k"), [(1000, 1096), (256, 4096), (5000, 128), (1000, 8)])
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, torch.bfloat16) for name in NAMES), ("silu", torch.float16)]
)
def test_gated_products(name: str, dtype: torch.dtype, n: int, k: int) -> None:
    weight, shift = weights(2 * n, k, dtype, True)
    product = HopperProduct(weight, shift, NAMES.index(name))
    for lines in (*LINES, 512, 4500):
        x = random(lines, k, dtype=dtype)
        assert_near(product(x), gated_activation(linear(x, weight, shift), ACTIVATIONS[name]))


def test_large_and_odd_values_are_gated_without_a_nan() -> None:
    weight = torch.eye(64, device=DEVICE, dtype=torch.bfloat16).repeat(2, 1)
    x = torch.full((8, 64), 300.0, device=DEVICE, dtype=torch.bfloat16)
    x[::2] = -300.0
    for kind, name in enumerate(NAMES):
        found = HopperProduct(weight, None, kind)(x)
        wanted = gated_activation(linear(x, weight, None), ACTIVATIONS[name])
        torch.testing.assert_close(found.double(), wanted, rtol=1e-2, atol=1e-6)


def test_lines_with_gaps_and_at_odd_places() -> None:
    weight, _ = weights(256, 128, torch.bfloat16, False)
    wide = random(70, 300)
    product = HopperProduct(weight, None)
    for x in (wide[:, 8:136], wide[:, 3:131], wide.T[:128].T):
        assert_close(product(x), linear(x, weight, None))


@pytest.mark.parametrize("lines", [65, 129])
def test_nothing_is_written_beside_the_product(lines: int) -> None:
    weight, _ = weights(1000, 1096, torch.bfloat16, False)
    x, around = random(lines, 1096), torch.zeros(lines + 200, 1000)
    around = around.to(x)
    HopperProduct(weight, None).add_to(x, around[100 : 100 + lines])
    assert_close(around[100 : 100 + lines], linear(x, weight, None))
    assert not around[:100].any() and not around[100 + lines :].any()


def test_the_same_lines_have_the_same_products_whatever_is_beside_them() -> None:
    weight, _ = weights(1024, 2048, torch.bfloat16, False)
    product = HopperProduct(weight, None)
    x = random(256, 2048)
    assert torch.equal(product(x)[:130], product(x[:130]))
    assert torch.equal(product(x), product(x))


def test_large_weights_suit_fewer_lines_but_for_a_gate_behind_them() -> None:
    weight = torch.zeros(4096, 2048, device=DEVICE, dtype=torch.bfloat16)
    assert [HopperProduct(weight, None).suits(lines) for lines in (2, 192, 193)] == [
        True,
        True,
        False,
    ]
    gated = HopperProduct(weight, None, NAMES.index("silu"))
    assert [gated.suits(lines) for lines in (256, 384, 8192)] == [True, False, True]


def test_products_that_follow_each_other_read_what_those_before_wrote() -> None:
    first, _ = weights(512, 256, torch.bfloat16, False)
    second, _ = weights(256, 512, torch.bfloat16, False)
    one, two = HopperProduct(first, None), HopperProduct(second, None)
    x = random(96, 256)

    def chain() -> Tensor:
        h = x.clone()
        for _ in range(4):
            two.add_to(one(h), h)
        return h

    wanted = x.double()
    for _ in range(4):
        wanted += F.linear(F.linear(wanted, first.double()), second.double())
    found = [chain() for _ in range(20)]
    assert_close(found[0], wanted)
    assert all(torch.equal(one, found[0]) for one in found)
