"""Triton kernels against their reference twins: interpreted on a CPU, compiled on a GPU.

bfloat16 is left out of the interpreter, which computes it wrongly; it is compared on a GPU.
"""

from __future__ import annotations

import pytest
import torch

from quire.kernels.reference import activation as reference_activation
from quire.kernels.reference.attention import write_kv
from quire.kernels.reference.norm import layer_norm as reference_layer_norm
from quire.kernels.reference.norm import rms_norm as reference_rms_norm
from quire.kernels.reference.rope import rope_angles as reference_rope_angles
from quire.kernels.reference.rope import rotate_half, rotate_interleaved
from quire.kernels.shapes import HeadsShape
from quire.kernels.triton import activation, norm, rope
from quire.kernels.triton.argmax import Argmax
from tests.unit.kernels.twins import DEVICE, DTYPES, assert_close, random


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [64, 100, 1024])
def test_norms_are_their_twins(dtype: torch.dtype, size: int) -> None:
    x = random(5, size, dtype=dtype)
    weight, bias = random(size, dtype=dtype), random(size, dtype=dtype)
    assert_close(norm.rms_norm(x, weight, 1e-5), reference_rms_norm(x, weight, 1e-5))
    assert_close(
        norm.layer_norm(x, weight, bias, 1e-5), reference_layer_norm(x, weight, bias, 1e-5)
    )
    assert_close(norm.layer_norm(x, None, None, 1e-5), reference_layer_norm(x, None, None, 1e-5))
    part = x[:, : size // 2]  # lines that do not lie together
    assert_close(
        norm.rms_norm(part, weight[: size // 2], 1e-5),
        reference_rms_norm(part, weight[: size // 2], 1e-5),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", reference_activation.ACTIVATIONS)
def test_gated_activation_is_its_twin(dtype: torch.dtype, name: str) -> None:
    gate_up = random(3, 2 * 1100, dtype=dtype)
    wanted = reference_activation.gated_activation(
        gate_up.clone(), reference_activation.ACTIVATIONS[name]
    )
    assert_close(activation.gated_activation(gate_up, name), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "rotary"),
    [(4, 2, 32, 32), (6, 3, 24, 8), (1, 1, 80, 80), (2, 1, 40, 24)],
)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("has_norms", [False, True])
def test_queries_keys_values_are_normed_turned_and_stored(
    dtype: torch.dtype,
    heads: int,
    kv_heads: int,
    dim: int,
    rotary: int,
    interleaved: bool,
    has_norms: bool,
) -> None:
    num_tokens = 5
    qkv = random(num_tokens, (heads + 2 * kv_heads) * dim, dtype=dtype)
    angles = torch.rand(num_tokens, 1, rotary // 2, device=DEVICE) * 6
    cos, sin = angles.cos(), angles.sin()
    slots = torch.tensor([7, 9, 4, 21, 12], device=DEVICE)
    weights = (random(dim, dtype=dtype), random(dim, dtype=dtype)) if has_norms else None
    q, k, v = qkv.unflatten(1, (-1, dim)).split((heads, kv_heads, kv_heads), dim=1)
    if weights:
        q, k = (
            reference_rms_norm(x, weight, 1e-6) for x, weight in zip((q, k), weights, strict=True)
        )
    rotate = rotate_interleaved if interleaved else rotate_half
    q, k = (torch.cat((rotate(x[..., :rotary], cos, sin), x[..., rotary:]), -1) for x in (q, k))
    wanted = torch.zeros(2, 6, 4, kv_heads, dim, dtype=dtype, device=DEVICE)
    write_kv(k, v, wanted, slots)
    cache = torch.zeros_like(wanted)
    shape = HeadsShape(
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=dim,
        rotary_dim=rotary,
        is_interleaved=interleaved,
        eps=(1e-6, 1e-6),
    )
    found = rope.store_heads(qkv, cos, sin, cache, slots, shape=shape, norms=weights)
    assert_close(found, q)
    assert_close(cache, wanted)


@pytest.mark.parametrize("cached", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_keys_and_values_too_large_for_eight_bits_are_the_largest(
    dtype: torch.dtype, cached: torch.dtype
) -> None:
    # Whole numbers: the interpreter forgets to carry where rounding reaches the next power of two.
    qkv = torch.randint(-7, 8, (3, 4 * 32), device=DEVICE).to(dtype)
    qkv[0] *= 8192.0
    qkv[1, 70] = -60_000.0  # of a key
    has_nan = DEVICE.type == "cuda" or cached == torch.float8_e5m2
    if has_nan:  # which the interpreter makes 384 in e4m3
        qkv[2, 100] = float("nan")  # of a value
    cos, sin = torch.ones(3, 1, 16, device=DEVICE), torch.zeros(3, 1, 16, device=DEVICE)
    slots = torch.tensor([7, 9, 4], device=DEVICE)
    _, k, v = qkv.unflatten(1, (-1, 32)).split((2, 1, 1), dim=1)
    wanted = torch.zeros(2, 6, 4, 1, 32, dtype=dtype, device=DEVICE).to(cached)
    write_kv(k, v, wanted, slots)
    cache = torch.zeros_like(wanted)
    shape = HeadsShape(
        num_heads=2, num_kv_heads=1, head_dim=32, rotary_dim=32, is_interleaved=False, eps=(0, 0)
    )
    rope.store_heads(qkv, cos, sin, cache, slots, shape=shape)
    torch.testing.assert_close(cache.float(), wanted.float(), rtol=0, atol=0, equal_nan=True)
    assert cache.float().nan_to_num().abs().max() == torch.finfo(cached).max
    assert cache.float().isnan().sum() == has_nan


@pytest.mark.parametrize("half", [4, 40, 64])
def test_angles_of_far_positions_are_their_twins(half: int) -> None:
    positions = torch.tensor([0, 1, 77, 4095, 131071, 1000003, 5], device=DEVICE)
    frequencies = 10000.0 ** -(torch.arange(half, device=DEVICE) / half)
    found = rope.rope_angles(positions, frequencies, 1.25)
    wanted = reference_rope_angles(positions, frequencies, 1.25)
    for ours, its in zip(found, wanted, strict=True):
        assert ours.shape == its.shape
        assert_close(ours, its)


@pytest.mark.parametrize("vocab_size", [50, 8192, 20000])
def test_argmax_is_torchs_also_on_ties_and_again(vocab_size: int) -> None:
    argmax = Argmax(4, vocab_size, DEVICE)
    for _ in range(2):
        logits = random(4, vocab_size)
        logits[1, 3] = logits[1, vocab_size - 1] = 100.0
        logits[2] = float("-inf")
        logits[2, vocab_size - 2] = -5.0
        assert torch.equal(argmax(logits), logits.argmax(dim=1))
