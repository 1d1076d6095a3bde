"""C++ kernels against their reference twins."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quire.kernels.cpp import heads, rows
from quire.kernels.reference import activation, norm
from quire.kernels.reference.attention import as_cached, write_kv
from quire.kernels.reference.rope import rotate_half, rotate_interleaved
from quire.kernels.shapes import HeadsShape
from tests.fakes.compilers import needs_compiler

pytestmark = [needs_compiler, pytest.mark.usefixtures("one_and_three_threads")]

TOLERANCE = {torch.float32: 1e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
DTYPES = list(TOLERANCE)
SHAPES = [(1, 64), (3, 5, 24), (70, 1024), (0, 16), (2, 7)]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def assert_close(found: Tensor, wanted: Tensor) -> None:
    assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
    if found.numel():
        error = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max()
        assert error < TOLERANCE[found.dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("has_float_weight", [False, True])
def test_rms_norm(dtype: torch.dtype, shape: tuple[int, ...], has_float_weight: bool) -> None:
    x = torch.randn(shape).to(dtype)
    weight = torch.randn(shape[-1]).to(torch.float32 if has_float_weight else dtype)
    assert_close(rows.rms_norm(x, weight, 1e-5), norm.rms_norm(x, weight, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_spoils_its_row_alone(dtype: torch.dtype) -> None:
    x = torch.randn(3, 40).to(dtype)
    x[1, 33] = float("nan")
    found = rows.rms_norm(x, torch.ones(40, dtype=dtype), 1e-5)
    assert found.isnan().all(dim=1).tolist() == [False, True, False]
    assert found.isnan().any(dim=1).tolist() == [False, True, False]


def test_rms_norm_of_rows_that_lie_apart() -> None:
    x, weight = torch.randn(9, 4, 32)[:, 1:3], torch.randn(32)
    assert_close(rows.rms_norm(x, weight, 1e-5), norm.rms_norm(x, weight, 1e-5))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", [*activation.ACTIVATIONS, "swiglu_oss"])
def test_gates(dtype: torch.dtype, shape: tuple[int, ...], name: str) -> None:
    gate_up = (4 * torch.randn(*shape[:-1], 2 * shape[-1])).to(dtype)
    assert_close(rows.gated(name)(gate_up), activation.gated(name)(gate_up.float()).to(dtype))


@pytest.mark.parametrize("name", rows.ACTIVATIONS)
def test_gates_of_values_far_from_zero(name: str) -> None:
    gate = torch.tensor([-3e38, -1e4, -90.0, -20.0, -0.0, 20.0, 90.0, 1e4, float("nan")])
    gate_up = torch.stack([gate, torch.ones(9)], dim=-1)
    wanted = activation.gated(name)(gate_up)
    torch.testing.assert_close(rows.gated(name)(gate_up), wanted, equal_nan=True)


def test_threads_share_many_rows() -> None:
    """So many that all threads work at the same time."""
    x, weight = torch.randn(8000, 1024), torch.randn(1024)
    assert_close(rows.rms_norm(x, weight, 1e-5), norm.rms_norm(x, weight, 1e-5))
    assert_close(rows.gated("silu")(x), activation.gated("silu")(x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("num_heads", "num_kv_heads", "dim", "rotary"),
    [(4, 2, 16, 16), (3, 1, 24, 8), (8, 8, 128, 128), (5, 1, 7, 2)],
)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("has_norms", [False, True])
def test_queries_keys_values_are_normed_turned_and_stored(
    dtype: torch.dtype,
    num_heads: int,
    num_kv_heads: int,
    dim: int,
    rotary: int,
    interleaved: bool,
    has_norms: bool,
) -> None:
    num_tokens = 70  # the widest of them are shared by threads
    qkv = torch.randn(num_tokens, (num_heads + 2 * num_kv_heads) * dim).to(dtype)
    angles = torch.rand(num_tokens, 1, rotary // 2) * 6
    cos, sin = angles.cos(), angles.sin()
    slots = torch.randperm(4 * num_tokens)[1 : num_tokens + 1]
    weights = (torch.randn(dim).to(dtype), torch.randn(dim).to(dtype)) if has_norms else None
    counts = (num_heads, num_kv_heads, num_kv_heads)
    q, k, v = qkv.float().unflatten(1, (-1, dim)).split(counts, dim=1)
    if weights:
        q, k = (
            norm.rms_norm(x, weight.float(), eps)
            for x, weight, eps in zip((q, k), weights, (1e-6, 0.5), strict=True)
        )
    rotate = rotate_interleaved if interleaved else rotate_half
    q, k = (torch.cat((rotate(x[..., :rotary], cos, sin), x[..., rotary:]), -1) for x in (q, k))
    wanted = torch.zeros(2, num_tokens, num_kv_heads, 4, dim, dtype=dtype).transpose(2, 3)
    write_kv(k.to(dtype), v.to(dtype), wanted, slots)
    cache = torch.zeros_like(wanted)
    shape = HeadsShape(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=dim,
        rotary_dim=rotary,
        is_interleaved=interleaved,
        eps=(1e-6, 0.5),
    )
    found = heads.store_heads(qkv, cos, sin, cache, slots, shape=shape, norms=weights)
    assert_close(found, q.to(dtype))
    assert_close(cache, wanted)
    fp8 = torch.zeros_like(cache, dtype=torch.float8_e4m3fn)
    again = heads.store_heads(qkv, cos, sin, fp8, slots, shape=shape, norms=weights)
    assert torch.equal(again, found)
    assert torch.equal(fp8.float(), as_cached(cache, fp8.dtype).float())


@pytest.mark.parametrize("size", [1, 7, 16, 1024, 1025, 40_000])
def test_argmax_is_the_first_of_the_largest(size: int) -> None:
    x = torch.randint(-50, 50, (9, size)).float()
    x[1] = float("-inf")
    x[2, size // 2] = float("inf")
    x[3, [size // 3, -1]] = float("nan")
    x[4] = -1e9
    assert torch.equal(rows.argmax(x), x.argmax(dim=1))
