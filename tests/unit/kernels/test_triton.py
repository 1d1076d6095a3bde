"""Triton kernels against their reference twins: interpreted on a CPU, compiled on a GPU.

bfloat16 is left out of the interpreter, which computes it wrongly; it is compared on a GPU.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from quire.kernels.reference import activation as reference_activation
from quire.kernels.reference.attention import paged_attention as reference_attention
from quire.kernels.reference.attention import write_kv
from quire.kernels.reference.norm import layer_norm as reference_layer_norm
from quire.kernels.reference.norm import rms_norm as reference_rms_norm
from quire.kernels.reference.rope import rotate_half, rotate_interleaved
from quire.kernels.selection import HeadsShape
from quire.kernels.triton import activation, attention, norm, rope
from quire.kernels.triton.argmax import Argmax
from quire.kernels.triton.gemv import gemv

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if DEVICE.type == "cuda" else [])
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    limit = TOLERANCE[found.dtype]
    error = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max()
    assert error < limit, f"off by {error:.2e} of the largest value, allowed {limit:.0e}"


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def paged_case(
    lengths: list[tuple[int, int]],
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, ...]:
    """(query, sequence) lengths of rows -> q, cache, table, query_start, seq_lens, all shuffled."""
    num_blocks = sum(-(-seq // block) for _, seq in lengths) + 1
    ids = (torch.randperm(num_blocks - 1) + 1).to(DEVICE, torch.int32)
    width = max(-(-seq // block) for _, seq in lengths) + 1
    table = torch.zeros(len(lengths), width, dtype=torch.int32, device=DEVICE)
    used = 0
    for row, (_, seq) in enumerate(lengths):
        count = -(-seq // block)
        table[row, :count] = ids[used : used + count]
        used += count
    cache = random(2, num_blocks, block, kv_heads, dim, dtype=dtype)
    cache[:, 0] = float("nan")  # the null block is never read
    starts = list(itertools.accumulate((query for query, _ in lengths), initial=0))
    q = random(starts[-1], heads, dim, dtype=dtype)
    query_start = torch.tensor(starts, dtype=torch.int32, device=DEVICE)
    seq_lens = torch.tensor([seq for _, seq in lengths], dtype=torch.int32, device=DEVICE)
    return q, cache, table, query_start, seq_lens


OPTIONS: list[dict[str, object]] = [
    {},
    {"window": 7},
    {"soft_cap": 5.0},
    {"alibi": True},
    {"window": 20, "soft_cap": 3.0},
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "block"), [(4, 2, 16, 8), (6, 1, 24, 64), (5, 5, 80, 16)]
)
@pytest.mark.parametrize("splits", [0, 1, 4])
def test_attention_is_its_twin(
    dtype: torch.dtype,
    options: dict[str, object],
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
    splits: int,
) -> None:
    """``splits`` 0 is the launch for any mix of query lengths."""
    decode = [(1, 1), (1, 5), (1, 64), (1, 100)]
    mixed = [(1, 9), (3, 3), (17, 40), (1, 1), (40, 66)]
    case = paged_case(decode if splits else mixed, heads, kv_heads, dim, block, dtype)
    q, seq_lens = case[0], case[-1]
    window, cap = options.get("window"), options.get("soft_cap")
    slopes = [2.0**-i for i in range(heads)] if options.get("alibi") else None
    wanted = reference_attention(
        *case,
        scale=0.2,
        window=window,
        soft_cap=cap,
        alibi_slopes=slopes,  # type: ignore[arg-type]
    )
    shape = attention.AttentionShape(
        num_kv_heads=kv_heads,
        group=heads // kv_heads,
        head_dim=dim,
        scale=0.2,
        window=window,  # type: ignore[arg-type]
        soft_cap=cap,  # type: ignore[arg-type]
    )
    lines = attention.decode_lines(shape)
    out = torch.full_like(q, float("nan"))
    space = attention.Workspace.of(len(seq_lens) * kv_heads * max(1, splits), lines, dim, DEVICE)
    for _ in range(2):  # the counters must be ready for another launch
        attention.paged_attention(
            out,
            *case,
            shape,
            is_decode=splits > 0,
            splits=max(1, splits),
            workspace=space,
            alibi_slopes=None if slopes is None else torch.tensor(slopes, device=DEVICE),
        )
        assert_close(out, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [64, 100, 1024])
def test_norms_are_their_twins(dtype: torch.dtype, size: int) -> None:
    x, residual = random(5, size, dtype=dtype), random(5, size, dtype=dtype)
    weight, bias = random(size, dtype=dtype), random(size, dtype=dtype)
    total = x + residual
    assert_close(norm.rms_norm(x, weight, 1e-5), reference_rms_norm(x, weight, 1e-5))
    assert_close(
        norm.layer_norm(x, weight, bias, 1e-5), reference_layer_norm(x, weight, bias, 1e-5)
    )
    assert_close(norm.layer_norm(x, None, None, 1e-5), reference_layer_norm(x, None, None, 1e-5))
    summed = residual.clone()
    assert_close(
        norm.add_rms_norm(x, summed, weight, 1e-5), reference_rms_norm(total, weight, 1e-5)
    )
    assert torch.equal(summed, total)
    summed = residual.clone()
    assert_close(
        norm.add_layer_norm(x, summed, weight, None, 1e-5),
        reference_layer_norm(total, weight, None, 1e-5),
    )
    assert torch.equal(summed, total)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", activation.NAMES)
def test_gated_activation_is_its_twin(dtype: torch.dtype, name: str) -> None:
    gate_up = random(3, 2 * 1100, dtype=dtype)
    wanted = reference_activation.gated_activation(
        gate_up.clone(), reference_activation.ACTIVATIONS[name]
    )
    assert_close(activation.gated_activation(gate_up, name), wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "rotary"), [(4, 2, 32, 32), (6, 3, 24, 8), (1, 1, 80, 80)]
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


@pytest.mark.parametrize("vocab_size", [50, 8192, 20000])
def test_argmax_is_torchs_also_on_ties_and_again(vocab_size: int) -> None:
    argmax = Argmax(4, vocab_size, DEVICE)
    for _ in range(2):
        logits = random(4, vocab_size)
        logits[1, 3] = logits[1, vocab_size - 1] = 100.0
        logits[2] = float("-inf")
        logits[2, vocab_size - 2] = -5.0
        assert torch.equal(argmax(logits), logits.argmax(dim=1))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "k"), [(64, 32), (101, 1500), (9, 9000)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_gemv_is_torchs_linear(dtype: torch.dtype, n: int, k: int, has_bias: bool) -> None:
    x, weight = random(1, k, dtype=dtype), random(n, k, dtype=dtype)
    bias = random(n, dtype=dtype) if has_bias else None
    wanted = torch.nn.functional.linear(
        x.double(), weight.double(), None if bias is None else bias.double()
    )
    assert_close(gemv(x, weight, bias), wanted)
