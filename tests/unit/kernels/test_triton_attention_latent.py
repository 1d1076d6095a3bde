"""Attention to keys whose first values are their values agrees with its definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from quire.kernels.reference import attention as reference
from quire.kernels.triton.attention import Workspace
from quire.kernels.triton.attention_latent import LatentShape, LatentTile, latent_attention
from tests.unit.kernels.twins import DEVICE, DTYPES, assert_close, random

BLOCK = 16
DECODE = [(1, 1), (1, 5), (1, 64), (1, 200)]
MIXED = [(1, 9), (3, 3), (17, 40), (1, 1), (20, 200)]


def case_of(
    lengths: list[tuple[int, int]], heads: int, dim: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(query, sequence) lengths of rows -> q, cache, table, query_start, seq_lens."""
    counts = [-(-length // BLOCK) for _, length in lengths]
    ids = (torch.randperm(sum(counts)) + 1).to(DEVICE, torch.int32).split(counts)
    table = torch.nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    cache = random(1, sum(counts) + 1, BLOCK, 1, dim, dtype=dtype)
    cache[:, 0] = float("nan")  # the null block is never read
    starts = list(itertools.accumulate((query for query, _ in lengths), initial=0))
    return (
        random(starts[-1], heads, dim, dtype=dtype),
        cache,
        table,
        torch.tensor(starts, dtype=torch.int32, device=DEVICE),
        torch.tensor([length for _, length in lengths], dtype=torch.int32, device=DEVICE),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "value_dim", "tail"), [(4, 16, 4), (3, 24, 16), (80, 16, 8)])
@pytest.mark.parametrize("is_decode", [False, True])
@pytest.mark.parametrize("max_programs", [1, 64])
def test_latent_attention_is_its_twin(
    dtype: torch.dtype, heads: int, value_dim: int, tail: int, is_decode: bool, max_programs: int
) -> None:
    torch.manual_seed(0)
    case = case_of(DECODE if is_decode else MIXED, heads, value_dim + tail, dtype)
    wanted = reference.paged_attention(*case, scale=0.2, value_dim=value_dim)
    shape = LatentShape(num_heads=heads, head_dim=value_dim + tail, value_dim=value_dim, scale=0.2)
    space = Workspace.of(max_programs, 64, shape.padded_values, DEVICE)
    for _ in range(2):  # the counters must be ready for another launch
        out = torch.full_like(wanted, float("nan"))
        latent_attention(out, *case, shape, is_decode=is_decode, workspace=space)
        assert_close(out, wanted)


def test_in_a_mixed_step_each_launch_takes_its_own_rows() -> None:
    case = case_of(MIXED, 4, 20, torch.float32)
    shape = LatentShape(num_heads=4, head_dim=20, value_dim=16, scale=0.2)
    tile = LatentTile(group=3, block_q=5, block_m=16, block_n=16, num_warps=4, least=1)
    space = Workspace.of(64, 64, shape.padded_values, DEVICE)
    wanted = reference.paged_attention(*case, scale=0.2, value_dim=16)
    out = torch.full_like(wanted, float("nan"))
    latent_attention(out, *case, shape, is_decode=True, is_mixed=True, workspace=space)
    is_one = torch.zeros(len(out), dtype=torch.bool)
    is_one[[0, 21]] = True
    assert out[is_one].isfinite().all() and out[~is_one].isnan().all()
    latent_attention(out, *case, shape, is_decode=False, is_mixed=True, workspace=space, tile=tile)
    assert_close(out, wanted)


@pytest.mark.parametrize("is_decode", [False, True])
def test_a_cache_of_eight_bits(is_decode: bool) -> None:
    case = case_of(DECODE if is_decode else MIXED, 4, 20, torch.float32)
    case = (case[0], case[1].to(torch.float8_e4m3fn), *case[2:])
    shape = LatentShape(num_heads=4, head_dim=20, value_dim=16, scale=0.2)
    wanted = reference.paged_attention(*case, scale=0.2, value_dim=16)
    out = torch.full_like(wanted, float("nan"))
    space = Workspace.of(64, 64, shape.padded_values, DEVICE)
    latent_attention(out, *case, shape, is_decode=is_decode, workspace=space)
    assert_close(out, wanted)
