"""Attention of a decode step in one launch equals its reference twins one after another.

On a Hopper GPU the kernel's; elsewhere that of a driver that stands for it and sees what it would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quire.kernels.cuda.availability import why_not
from quire.kernels.cuda.decode_attention import FEW, MANY, Cut, DecodeAttention
from quire.kernels.reference.attention import paged_attention, write_kv
from quire.kernels.reference.norm import rms_norm
from quire.kernels.reference.rope import rotate_half
from quire.kernels.shapes import DecodeRows, HeadsShape
from tests.unit.kernels.fake_driver import fake_driver
from tests.unit.kernels.twins import assert_close

IS_HOPPER = not why_not(torch.zeros(64, 64, dtype=torch.bfloat16), None, gated=False)
DEVICE = torch.device("cuda" if IS_HOPPER else "cpu")
LESS = 1 if IS_HOPPER else 10  # of what is long or many; the driver that stands for it is slow
BLOCK_SIZE = 16

# Query heads, KV heads, values of a head: Qwen3-0.6B, Llama-3.1-8B, Qwen3-30B-A3B, Qwen2.5-7B,
# Llama-3.2-1B, one of each, Qwen2.5-0.5B, Llama-3.2-3B.
SHAPES = [(16, 8, 128), (32, 8, 128), (32, 4, 128), (28, 4, 128), (32, 8, 64), (1, 1, 64)]
SHAPES += [(14, 2, 64), (24, 8, 128)]
# Tiles are of 16 keys, parts are multiples of 64, and of 256 at least: at, before and behind each
# border; few rows with parts of their keys, more items than run at once, and none but the own key.
LENGTHS = {
    "one": [1],
    "borders": [1, 2, 15, 16, 17, 18, 63, 64, 65, 66, 127, 128, 129],
    "parts": [257, 4100, 1],
    "long": [20_000 // LESS],
    "one long": [9000 // LESS, *[100] * (70 // LESS)],
    "many": [1 + 37 * i % 700 for i in range(300 // LESS)],
}


@pytest.fixture(autouse=True)
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if IS_HOPPER:
        yield
        return
    with fake_driver(monkeypatch):
        yield


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A step's inputs, in a cache whose blocks lie in no order."""

    shape: HeadsShape
    norms: tuple[Tensor, Tensor] | None
    qkv: Tensor
    cos: Tensor
    sin: Tensor
    cache: Tensor
    slots: Tensor
    block_table: Tensor
    seq_lens: Tensor
    order: Tensor
    scale: float

    def found(
        self, block_size: int = BLOCK_SIZE, cuts: tuple[Cut, Cut] = (FEW, MANY)
    ) -> tuple[Tensor, Tensor]:
        """What is attended, and the cache behind it."""
        attend = DecodeAttention(
            self.shape,
            self.norms,
            scale=self.scale,
            block_size=block_size,
            dtype=self.qkv.dtype,
            device=DEVICE,
            cuts=cuts,
        )
        assert attend.is_usable()
        cache = self.cache.clone()
        out = attend(
            self.qkv,
            self.cos,
            self.sin,
            cache,
            self.slots,
            DecodeRows(block_table=self.block_table, seq_lens=self.seq_lens, order=self.order),
        )
        return out, cache

    def wanted(self) -> tuple[Tensor, Tensor]:
        shape, cache = self.shape, self.cache.clone()
        heads = (shape.num_heads, shape.num_kv_heads, shape.num_kv_heads)
        q, k, v = self.qkv.unflatten(1, (-1, shape.head_dim)).split(heads, dim=1)
        if self.norms:
            q, k = (
                rms_norm(x, weight, eps)
                for x, weight, eps in zip((q, k), self.norms, shape.eps, strict=True)
            )
        q, k = (rotate_half(x, self.cos, self.sin) for x in (q, k))
        write_kv(k, v, cache, self.slots)
        start = torch.arange(len(q) + 1)
        out = paged_attention(
            q.float(), cache, self.block_table, start, self.seq_lens, scale=self.scale
        )
        return out, cache


def problem(
    lengths: list[int],
    heads: tuple[int, int, int] = SHAPES[0],
    *,
    dtype: torch.dtype = torch.bfloat16,
    has_norms: bool = True,
    block_size: int = BLOCK_SIZE,
) -> Problem:
    torch.manual_seed(0)
    num_heads, num_kv_heads, dim = heads
    shape = HeadsShape(
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=dim,
        rotary_dim=dim,
        is_interleaved=False,
        eps=(1e-6, 1e-5),
    )
    counts = [-(-length // block_size) for length in lengths]
    num_blocks = sum(counts) + 1
    cache = torch.randn(2, num_blocks, block_size, num_kv_heads, dim, device=DEVICE).to(dtype)
    ids = iter((torch.randperm(num_blocks - 1) + 1).tolist())
    table = torch.zeros(len(lengths), max(counts) + 3, dtype=torch.int32)
    slots = []
    for row, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        table[row, :count] = torch.tensor([next(ids) for _ in range(count)])
        last = length - 1
        slots.append(int(table[row, last // block_size]) * block_size + last % block_size)
        # what lies behind a row's last key may be anything
        cache[:, table[row, last // block_size], last % block_size :] = float("nan")
    angles = torch.rand(len(lengths), 1, dim // 2, device=DEVICE) * 6
    return Problem(
        shape=shape,
        norms=tuple(torch.randn(2, dim, device=DEVICE).to(dtype)) if has_norms else None,
        qkv=torch.randn(len(lengths), (num_heads + 2 * num_kv_heads) * dim, device=DEVICE).to(
            dtype
        ),
        cos=angles.cos(),
        sin=angles.sin(),
        cache=cache,
        slots=torch.tensor(slots, device=DEVICE),
        block_table=table.to(DEVICE),
        seq_lens=torch.tensor(lengths, dtype=torch.int32, device=DEVICE),
        order=torch.tensor(lengths, device=DEVICE).argsort(descending=True).int(),
        scale=dim**-0.5,
    )


def check(one: Problem, **how: Any) -> None:
    out, cache = one.found(**how)
    wanted, wanted_cache = one.wanted()
    assert_close(out, wanted)
    # another order of a norm's sum may round otherwise
    torch.testing.assert_close(cache, wanted_cache, rtol=2e-2, atol=1e-2, equal_nan=True)


@pytest.mark.parametrize("has_norms", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("heads", SHAPES, ids=str)
def test_it_is_its_twins(heads: tuple[int, int, int], lengths: str, has_norms: bool) -> None:
    check(problem(LENGTHS[lengths], heads, has_norms=has_norms))


@pytest.mark.parametrize("lengths", LENGTHS)
def test_of_halves(lengths: str) -> None:
    check(problem(LENGTHS[lengths], dtype=torch.float16))


@pytest.mark.parametrize("block_size", [32, 64, 128])
def test_of_larger_blocks(block_size: int) -> None:
    check(problem([1, 15, 300, 64, 129, 4000], block_size=block_size), block_size=block_size)


@pytest.mark.parametrize(
    "cut",
    [FEW, MANY, Cut(warps=1, rounds=9, least=256, stages=3), Cut(warps=2, rounds=4, least=64)],
    ids=str,
)
def test_however_it_is_cut(cut: Cut) -> None:
    for lengths in LENGTHS.values():
        check(problem(lengths), cuts=(cut, cut))


def test_rows_may_come_in_any_order_and_a_table_may_be_part_of_a_wider_one() -> None:
    one = problem(LENGTHS["borders"])
    torch.manual_seed(1)
    order = torch.randperm(len(one.qkv)).int().to(DEVICE)
    check(replace(one, order=order, block_table=one.block_table[:, :-3]))


@pytest.mark.parametrize("lengths", ["one long", "many"])
def test_the_same_step_is_the_same_again(lengths: str) -> None:
    """Whichever block is the last of a row's to end."""
    one = problem(LENGTHS[lengths])
    first, _ = one.found()
    assert all(torch.equal(one.found()[0], first) for _ in range(3))
