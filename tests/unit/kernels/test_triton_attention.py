"""Attention kernels against their definition: decode, chunks, mixed steps, shared prefixes, fp8."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from quire.kernels.reference import attention as reference
from quire.kernels.triton.attention import (
    AttentionShape,
    Tile,
    Workspace,
    best_tile,
    most_tiles,
    paged_attention,
)
from quire.kernels.triton.attention_prefix import attend_prefix, prefix_sums
from quire.kernels.triton.attention_tiles import prompt_tiles
from tests.unit.kernels.twins import DEVICE, DTYPES, assert_close, random

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
MANY_PROGRAMS = 32  # room to split the keys of a few rows

Case = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


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
) -> Case:
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


def shape_of(case: Case, **options: Any) -> AttentionShape:
    heads, (_, _, _, kv_heads, dim) = case[0].shape[1], case[1].shape
    return AttentionShape(
        num_kv_heads=kv_heads, group=heads // kv_heads, head_dim=dim, scale=0.2, **options
    )


def workspace(shape: AttentionShape, max_programs: int = MANY_PROGRAMS) -> Workspace:
    return Workspace.of(max_programs, 64, shape.padded_dim, DEVICE)


def slopes_of(case: Case) -> list[float]:
    return [2.0**-i for i in range(case[0].shape[1])]


OPTIONS: list[dict[str, Any]] = [
    {},
    {"window": 7},
    {"soft_cap": 5.0},
    {"alibi": True},
    {"window": 20, "soft_cap": 3.0},
]
SHAPES = [(4, 2, 16, 8), (6, 1, 24, 64), (5, 5, 80, 16)]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [(dtype, OPTIONS[0]) for dtype in DTYPES] + [(torch.float32, o) for o in OPTIONS[1:]],
)
@pytest.mark.parametrize(("heads", "kv_heads", "dim", "block"), SHAPES)
@pytest.mark.parametrize("is_decode", [False, True])
@pytest.mark.parametrize("max_programs", [1, MANY_PROGRAMS])
def test_attention_is_its_twin(
    dtype: torch.dtype,
    options: dict[str, Any],
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
    is_decode: bool,
    max_programs: int,
) -> None:
    decode = [(1, 1), (1, 5), (1, 64), (1, 530)]
    mixed = [(1, 9), (3, 3), (17, 40), (1, 1), (20, 530)]
    case = paged_case(decode if is_decode else mixed, heads, kv_heads, dim, block, dtype)
    window, cap = options.get("window"), options.get("soft_cap")
    slopes = slopes_of(case) if options.get("alibi") else None
    wanted = reference.paged_attention(
        *case, scale=0.2, window=window, soft_cap=cap, alibi_slopes=slopes
    )
    shape = shape_of(case, window=window, soft_cap=cap)
    space = workspace(shape, max_programs)
    order = torch.tensor([3, 0, 2, 1], dtype=torch.int32, device=DEVICE) if is_decode else None
    for given in (None, order):  # the counters must be ready for another launch
        out = torch.full_like(case[0], float("nan"))
        paged_attention(
            out,
            *case,
            shape,
            is_decode=is_decode,
            workspace=space,
            order=given,
            alibi_slopes=None if slopes is None else torch.tensor(slopes, device=DEVICE),
        )
        assert_close(out, wanted)


@pytest.mark.parametrize("max_programs", [1, MANY_PROGRAMS])
@pytest.mark.parametrize("is_decode", [False, True])
@pytest.mark.parametrize("window", [None, 7])
def test_sinks_take_attention_once(max_programs: int, is_decode: bool, window: int | None) -> None:
    lengths = [(1, 1), (1, 5), (1, 530)] if is_decode else [(1, 9), (17, 40), (20, 530)]
    case = paged_case(lengths, 4, 2, 16, 16, torch.float32)
    sinks = torch.tensor([-30.0, 0.5, 3.0, 400.0], device=DEVICE)
    wanted = reference.paged_attention(*case, scale=0.2, window=window, sinks=sinks)
    shape = shape_of(case, window=window)
    out = torch.full_like(case[0], float("nan"))
    paged_attention(
        out,
        *case,
        shape,
        is_decode=is_decode,
        workspace=workspace(shape, max_programs),
        sinks=sinks,
    )
    assert_close(out, wanted)
    assert out[:, 3].abs().max() < 1e-30 < out[:, 0].abs().max()


@pytest.mark.parametrize("max_programs", [1, MANY_PROGRAMS])
def test_in_a_mixed_step_each_launch_takes_its_own_rows(max_programs: int) -> None:
    lengths = [(17, 40), (1, 9), (1, 290), (3, 3), (1, 1), (30, 266)]
    case = paged_case(lengths, 4, 2, 16, 16, torch.float32)
    q, cache, table, query_start, seq_lens = case
    wanted = reference.paged_attention(*case, scale=0.2)
    # A graph's spare rows have no query, or one that sees the null block's first token.
    cache[:, 0, 0] = 0.0
    spare = torch.zeros(2, table.shape[1], dtype=torch.int32, device=DEVICE)
    starts = [*query_start.tolist(), len(q) + 1, len(q) + 1]
    padded = (
        torch.cat((q, random(5, 4, 16))),
        cache,
        torch.cat((table, spare)),
        torch.tensor(starts, dtype=torch.int32, device=DEVICE),
        torch.tensor([*seq_lens.tolist(), 1, 0], dtype=torch.int32, device=DEVICE),
    )
    shape = shape_of(case)
    out = torch.full_like(padded[0], float("nan"))
    is_one = torch.zeros(len(out), dtype=torch.bool, device=DEVICE)
    is_one[[17, 18, 22, len(q)]] = True
    paged_attention(
        out, *padded, shape, is_decode=True, is_mixed=True, workspace=workspace(shape, max_programs)
    )
    assert torch.equal(~out.isnan().flatten(1).any(dim=1), is_one)
    block_q = best_tile(shape, torch.float32, is_decode=False, is_mixed=True).block_q
    num_tiles = most_tiles(len(padded[0]), len(padded[4]), block_q)
    paged_attention(
        out,
        *padded,
        shape,
        is_decode=False,
        is_mixed=True,
        workspace=workspace(shape, max_programs),
        tiles=prompt_tiles(padded[3], block_q, num_tiles),
    )
    assert_close(out[: len(q)], wanted)
    assert out[len(q) + 1 :].isnan().all()


@pytest.mark.parametrize("block_q", [2, 16])
@pytest.mark.parametrize("num_rows", [1, 5, 70])
def test_tiles_of_prompts_come_first_and_are_those_of_each_row(block_q: int, num_rows: int) -> None:
    numbers = np.random.default_rng(num_rows)
    lengths = numbers.choice([0, 1, 2, block_q, block_q + 1, 5 * block_q + 3], num_rows)
    starts = torch.tensor([0, *lengths.cumsum()], dtype=torch.int32, device=DEVICE)
    wanted = [
        [row, first]
        for row, length in enumerate(lengths.tolist())
        for first in range(0, length, block_q)
        if length > 1
    ]
    num_tiles = most_tiles(int(lengths.sum()), num_rows, block_q)
    found = prompt_tiles(starts, block_q, num_tiles)
    assert found[: len(wanted)].tolist() == wanted
    assert found[len(wanted) :, 0].tolist() == [-1] * (num_tiles - len(wanted))


SMALL_TILE = Tile(block_q=2, block_m=16, block_n=32, num_warps=4, num_stages=2, least=1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("options", "heads", "kv_heads", "dim", "block"),
    [
        ({}, *SHAPES[0]),
        ({}, *SHAPES[1]),
        ({"soft_cap": 5.0}, *SHAPES[2]),
        ({"alibi": True}, *SHAPES[0]),
    ],
)
@pytest.mark.parametrize("max_programs", [1, MANY_PROGRAMS])
def test_a_shared_prefix_and_the_rest_are_plain_attention(
    dtype: torch.dtype,
    options: dict[str, Any],
    heads: int,
    kv_heads: int,
    dim: int,
    block: int,
    max_programs: int,
) -> None:
    """Row 4 sees nothing but the prefix, rows 0 and 2 share with nobody."""
    num_shared = 130 // block
    shared_tokens = num_shared * block
    lengths = [(1, 9), (1, shared_tokens + 70), (1, 1), (1, shared_tokens + 1), (1, shared_tokens)]
    lengths += [(1, shared_tokens + 5 * i) for i in range(1, 3)]
    case = paged_case(lengths, heads, kv_heads, dim, block, dtype)
    q, cache, table, _, seq_lens = case
    members = [4, 1, 3, *range(5, len(lengths))]
    table[members, :num_shared] = table[1, :num_shared]
    num_blocks = torch.zeros_like(seq_lens)
    num_blocks[members] = num_shared
    padded = members + [-1] * (len(lengths) - len(members))
    slopes = slopes_of(case) if options.get("alibi") else None
    cap = options.get("soft_cap")
    wanted = reference.paged_attention(*case, scale=0.2, soft_cap=cap, alibi_slopes=slopes)
    shape = shape_of(case, soft_cap=cap)
    slopes_there = None if slopes is None else torch.tensor(slopes, device=DEVICE)
    sums = prefix_sums(num_blocks, shape, dtype, max_programs, SMALL_TILE)
    sums.parts.fill_(float("nan"))
    attend_prefix(
        sums, q, cache, table, seq_lens, torch.tensor(padded, dtype=torch.int32, device=DEVICE),
        shape, alibi_slopes=slopes_there, tile=SMALL_TILE,
    )  # fmt: skip
    read_again = table.clone()
    read_again[members, :num_shared] = 0  # which is not a number
    out = torch.full_like(q, float("nan"))
    paged_attention(
        out, q, cache, read_again, *case[3:], shape, is_decode=True, prefix=sums,
        workspace=workspace(shape, max_programs), alibi_slopes=slopes_there,
    )  # fmt: skip
    assert_close(out, wanted)


def test_without_members_a_prefix_changes_nothing() -> None:
    case = paged_case([(1, 9), (1, 70)], 4, 2, 16, 16, torch.float32)
    shape = shape_of(case)
    nobody = torch.full_like(case[-1], -1)
    sums = prefix_sums(torch.zeros_like(nobody), shape, torch.float32, MANY_PROGRAMS)
    sums.parts.fill_(float("nan"))
    attend_prefix(sums, *case[:3], case[-1], nobody, shape)
    out = torch.full_like(case[0], float("nan"))
    paged_attention(out, *case, shape, is_decode=True, prefix=sums, workspace=workspace(shape))
    assert_close(out, reference.paged_attention(*case, scale=0.2))


@pytest.mark.parametrize("cached", FP8, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("is_decode", [False, True])
def test_a_cache_of_eight_bits(cached: torch.dtype, dtype: torch.dtype, is_decode: bool) -> None:
    lengths = [(1, 5), (1, 100)] if is_decode else [(1, 9), (17, 40)]
    q, cache, table, query_start, seq_lens = paged_case(lengths, 4, 2, 16, 16, dtype)
    case = (q, cache.to(cached), table, query_start, seq_lens)
    shape = shape_of(case)
    out = torch.full_like(q, float("nan"))
    paged_attention(out, *case, shape, is_decode=is_decode, workspace=workspace(shape))
    assert_close(out, reference.paged_attention(*case, scale=0.2))


def test_a_shared_prefix_of_eight_bits() -> None:
    case = paged_case([(1, 40), (1, 37)], 4, 2, 16, 16, torch.float32)
    q, cache, table, _, seq_lens = case = (case[0], case[1].to(FP8[0]), *case[2:])
    table[1, :2] = table[0, :2]
    shape, shared = shape_of(case), torch.full_like(seq_lens, 2)
    sums = prefix_sums(shared, shape, q.dtype, MANY_PROGRAMS, SMALL_TILE)
    members = torch.tensor([0, 1], dtype=torch.int32, device=DEVICE)
    attend_prefix(sums, q, cache, table, seq_lens, members, shape, tile=SMALL_TILE)
    out = torch.full_like(q, float("nan"))
    paged_attention(out, *case, shape, is_decode=True, prefix=sums, workspace=workspace(shape))
    assert_close(out, reference.paged_attention(*case, scale=0.2))
