"""Products of one line equal torch's, with the norm before and the gate or addition after them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.reference.norm import rms_norm
from quire.kernels.triton.activation import NAMES
from quire.kernels.triton.gemv import add_gemv, gated_gemv, gemv, tile_of
from tests.unit.kernels.twins import DTYPES, assert_close, random

EPS = 1e-5
SHAPES = [(64, 32), (17, 1500), (3, 5000)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def weights(n: int, k: int, dtype: torch.dtype, *, bias: bool) -> tuple[Tensor, Tensor | None]:
    weight = (random(n, k) / k**0.5).to(dtype)
    return weight, random(n, dtype=dtype) if bias else None


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(x.double(), weight.double(), None if bias is None else bias.double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("bias", [False, True])
def test_gemv_is_torchs_linear(dtype: torch.dtype, n: int, k: int, bias: bool) -> None:
    x, (weight, shift) = random(1, k, dtype=dtype), weights(n, k, dtype, bias=bias)
    assert_close(gemv(x, weight, shift), linear(x, weight, shift))
    h = random(1, n, dtype=dtype)
    wanted = h.double() + linear(x, weight, shift)
    add_gemv(x, h, weight, shift)
    assert_close(h, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_gemv_norms_its_line(dtype: torch.dtype, n: int, k: int) -> None:
    x, gain = 3 * random(1, k, dtype=dtype), random(k)
    weight, shift = weights(n, k, dtype, bias=True)
    wanted = linear(rms_norm(x.double(), gain.double(), EPS), weight, shift)
    assert_close(gemv(x, weight, shift, (gain, EPS)), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_gated_gemv_is_norm_product_and_activation(
    dtype: torch.dtype, n: int, k: int, name: str
) -> None:
    x, gain = random(1, k, dtype=dtype), random(k, dtype=dtype)
    weight, shift = weights(2 * n, k, dtype, bias=True)
    gate_up = linear(rms_norm(x.double(), gain.double(), EPS), weight, shift)
    wanted = gated_activation(gate_up, ACTIVATIONS[name])
    assert_close(gated_gemv(x, weight, shift, (gain, EPS), name), wanted)
    wanted = gated_activation(linear(x, weight, None), ACTIVATIONS[name])
    assert_close(gated_gemv(x, weight, None, None, name), wanted)


def test_norm_weights_may_be_of_another_dtype() -> None:
    """Gemma keeps its norm weights in float32."""
    x, gain = random(1, 64, dtype=torch.float16), random(64)
    weight, _ = weights(8, 64, torch.float16, bias=False)
    wanted = linear(rms_norm(x.double(), gain.double(), EPS), weight, None)
    assert_close(gemv(x, weight, None, (gain, EPS)), wanted)


@pytest.mark.parametrize("k", [1, 64, 1024, 2048, 3072, 4096, 14336, 28672, 53248])
@pytest.mark.parametrize("value_bytes", [2, 4])
def test_a_program_holds_its_rows_in_registers(k: int, value_bytes: int) -> None:
    rows, warps = tile_of(k, value_bytes)
    assert 1 <= warps <= 8 and 1 <= rows <= 8
    bytes_of_thread = rows * k * value_bytes / (32 * warps)
    assert bytes_of_thread <= 256 or rows == 1
