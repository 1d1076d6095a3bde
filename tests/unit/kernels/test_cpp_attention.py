"""The C++ attention kernel against its definition: every option, length, type and thread count."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quire.kernels.cpp.attention import attend_rows
from quire.kernels.reference.attention import paged_attention
from tests.fakes.compilers import needs_compiler

pytestmark = [needs_compiler, pytest.mark.usefixtures("one_and_three_threads")]

TOLERANCE = {torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
DTYPES = list(TOLERANCE)
LENGTHS = [1, 5, 64, 530, 15, 129]


def _case(
    lengths: list[int],
    *,
    kv_heads: int = 2,
    group: int = 3,
    dim: int = 24,
    block_size: int = 16,
    planes: int = 2,
    dtype: torch.dtype = torch.float32,
    by_head: bool = True,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(q, cache, block table, lengths); NaN wherever no query may look."""
    generator = torch.Generator().manual_seed(len(lengths))
    counts = [-(-length // block_size) for length in lengths]
    num_blocks = sum(counts) + 1
    ids = (torch.randperm(num_blocks - 1, generator=generator) + 1).int().split(counts)
    cache = torch.full((planes, num_blocks, kv_heads, block_size, dim), float("nan"), dtype=dtype)
    cache = (
        cache.transpose(2, 3) if by_head else cache.view(planes, num_blocks, block_size, -1, dim)
    )
    table = torch.zeros(len(lengths), max(counts) + 2, dtype=torch.int32)
    for row, (length, blocks) in enumerate(zip(lengths, ids, strict=True)):
        table[row, : len(blocks)] = blocks
        places = torch.arange(length)
        shape = (planes, length, kv_heads, dim)
        values = torch.randn(shape, generator=generator).to(dtype)
        cache[:, blocks.long()[places // block_size], places % block_size] = values
    q = torch.randn(len(lengths), kv_heads * group, dim, generator=generator).to(dtype)
    return q, cache, table, torch.tensor(lengths, dtype=torch.int32)


def _error(case: tuple[Tensor, Tensor, Tensor, Tensor], **options: Any) -> float:
    q, cache, table, lengths = case
    out = q.new_full((*q.shape[:2], options.get("value_dim") or q.shape[2]), float("nan"))
    slopes = options.pop("alibi_slopes", None)
    slopes_of_kernel = None if slopes is None else torch.tensor(slopes)
    attend_rows(*case, scale=0.2, alibi_slopes=slopes_of_kernel, out=out, **options)
    starts = torch.arange(len(lengths) + 1, dtype=torch.int32)
    wanted = paged_attention(
        q, cache, table, starts, lengths, scale=0.2, alibi_slopes=slopes, **options
    )
    assert torch.isfinite(out).all()
    return float((out.float() - wanted.float()).abs().max() / wanted.float().abs().max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("group", "dim", "block_size"), [(1, 16, 1), (2, 64, 16), (5, 80, 7), (3, 24, 64), (8, 256, 16)]
)
def test_rows_of_any_length(dtype: torch.dtype, group: int, dim: int, block_size: int) -> None:
    case = _case(LENGTHS, group=group, dim=dim, block_size=block_size, dtype=dtype)
    assert _error(case) < TOLERANCE[dtype]


@pytest.mark.parametrize(
    "options",
    [
        {"window": 7},
        {"window": 129},
        {"soft_cap": 1.5},
        {"alibi_slopes": [0.5, 0.25, 0.1, 0.06, 0.03, 0.01]},
        {"sinks": torch.tensor([0.3, -2.0, 5.0, 0.0, 1.0, 30.0])},
        {"window": 70, "soft_cap": 3.0, "sinks": torch.linspace(-3, 3, 6)},
    ],
    ids=lambda options: "-".join(options),
)
def test_options(options: dict[str, Any]) -> None:
    assert _error(_case(LENGTHS), **options) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("value_dim", [16, 20, 64])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_part_of_their_keys(value_dim: int, dtype: torch.dtype) -> None:
    case = _case(LENGTHS, kv_heads=1, group=9, dim=72, planes=1, dtype=dtype)
    assert _error(case, value_dim=value_dim) < TOLERANCE[dtype]


def test_many_rows_are_shared_by_threads() -> None:
    assert _error(_case([*range(600, 660)], kv_heads=4, dim=64)) < TOLERANCE[torch.float32]


def test_keys_of_a_long_row_are_shared_by_threads() -> None:
    limit = 2e-5  # of sums in which 9,000 values nearly cancel each other
    assert _error(_case([9000, 3, 700], kv_heads=1)) < limit
    sinks = torch.tensor([1.0, 2.0, 3.0])
    assert _error(_case([9000], kv_heads=1), sinks=sinks) < limit


def test_a_cache_whose_tokens_lie_together() -> None:
    assert _error(_case(LENGTHS, by_head=False)) < TOLERANCE[torch.float32]


def test_scores_far_from_zero() -> None:
    q, cache, table, lengths = _case(LENGTHS)
    assert _error((q + 40, cache, table, lengths)) < 1e-4  # scores of hundreds, with float32's ulp
    cache[0] += 40
    assert _error((q + 40, cache, table, lengths)) < 1e-2


def test_a_nan_among_the_keys_is_not_hidden() -> None:
    q, cache, table, lengths = _case([40, 40])
    cache[0, table[0, 1], 3] = float("nan")
    out = torch.empty_like(q)
    attend_rows(q, cache, table, lengths, scale=0.2, out=out)
    assert out[0].isnan().all() and out[1].isfinite().all()
