"""The best column of a product that is not written is the argmax of one that is.

On a Hopper GPU the kernel's; elsewhere that of a driver that stands for it and sees what it would.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cuda.best_column import BestColumn
from tests.unit.kernels.fake_driver import FakeDriver, fake_driver
from tests.unit.kernels.test_cuda_product import DEVICE, IS_HOPPER

LINES = (2, 63, 64, 65, 128, 129, 192, 256, 448, 768)
# (n, k): strips of every width end inside and at a tile; more tiles than processors; one strip
SHAPES = [(4096, 512), (5000, 136), (40_000, 64), (32, 8)]


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver | None]:
    torch.manual_seed(0)
    if IS_HOPPER:
        yield None
        return
    with fake_driver(monkeypatch) as fake:
        yield fake


def whole_numbers(*shape: int, dtype: torch.dtype) -> Tensor:
    """Small ones, whose products are exact in any order, with many that are equal."""
    return torch.randint(-3, 4, shape, device=DEVICE).to(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_the_first_of_the_largest(dtype: torch.dtype, n: int, k: int) -> None:
    weight = whole_numbers(n, k, dtype=dtype)
    best = BestColumn(weight)
    for lines in LINES:
        assert best.suits(lines)
        x = whole_numbers(lines, k, dtype=dtype)
        logits = F.linear(x.double(), weight.double()).to(dtype)
        for _ in range(2):  # what a launch leaves serves the next one
            assert torch.equal(best(x), logits.float().argmax(dim=1))


def test_values_that_are_equal_when_rounded() -> None:
    weight = torch.ones(300, 64, device=DEVICE, dtype=torch.bfloat16)
    weight[7, 0], weight[211, 0] = 1.5, 1.75  # 256.5 and 256.75 are both 256 in bf16
    x = torch.full((3, 64), 4.0, device=DEVICE, dtype=torch.bfloat16)
    x[:, 0] = 1.0
    x[:, 1] = 7.0
    assert BestColumn(weight)(x).tolist() == [0, 0, 0]


def test_negative_values_and_zeros() -> None:
    weight = -torch.ones(512, 64, device=DEVICE, dtype=torch.bfloat16)
    weight[300] = -0.5
    x = torch.ones(4, 64, device=DEVICE, dtype=torch.bfloat16)
    x[1] = 0.0
    x[3] = -0.0
    assert BestColumn(weight)(x).tolist() == [300, 0, 300, 0]


def test_what_is_not_a_number_is_no_best_column() -> None:
    weight = torch.zeros(1000, 64, device=DEVICE, dtype=torch.bfloat16)
    weight[5, 0] = float("nan")
    weight[600, 1] = -1.0
    weight[601:, 1] = -2.0
    weight[:600, 1] = -3.0
    x = torch.zeros(3, 64, device=DEVICE, dtype=torch.bfloat16)
    x[:, 1] = 1.0
    x[2, 2] = float("nan")  # all of this line
    assert BestColumn(weight)(x).tolist() == [600, 600, 0]


def test_one_line_and_lines_that_fill_no_tiles_are_left_to_others() -> None:
    best = BestColumn(whole_numbers(4096, 64, dtype=torch.bfloat16))
    suited = [lines for lines in (1, 2, 256, 257, 384, 448, 4096, 4097) if best.suits(lines)]
    assert suited == [2, 256, 448, 4096]
