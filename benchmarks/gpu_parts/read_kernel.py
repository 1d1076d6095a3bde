"""A kernel that only reads memory, to measure bandwidth. Imported only where Triton is."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 4096  # 32-bit words per load
LOADS = 16  # per program


@triton.jit
def _read(source, sums, num_words, BLOCK: tl.constexpr, LOADS: tl.constexpr):
    program = tl.program_id(0)
    total = tl.zeros((BLOCK,), dtype=tl.int32)
    for i in range(LOADS):
        index = (program * LOADS + i) * BLOCK + tl.arange(0, BLOCK)
        total += tl.load(source + index, mask=index < num_words, other=0)
    tl.store(sums + program, tl.sum(total.to(tl.int64), axis=0).to(tl.int32))


def read_all(source: torch.Tensor) -> torch.Tensor:
    """Read all of ``source`` [bytes, a multiple of 4]; returns 32-bit sums of its parts."""
    words = source.view(torch.int32)
    assert words.numel() < 2**31 - BLOCK * LOADS
    num_programs = triton.cdiv(words.numel(), BLOCK * LOADS)
    sums = torch.empty(num_programs, dtype=torch.int32, device=source.device)
    _read[(num_programs,)](words, sums, words.numel(), BLOCK=BLOCK, LOADS=LOADS, num_warps=8)
    return sums
