"""The product of one line with a weight, which only waits for the weight to be read.

The multiplications are free, so they are done without matrix units, and many small programs keep
many bytes of the weight in flight. For more lines cuBLAS is as fast (benchmarks/RESULTS.md).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_LONG = 8192  # sums longer than this take four rows a program and smaller steps


@triton.jit
def _gemv_kernel(
    out, x, weight, bias,
    N: tl.constexpr, K: tl.constexpr, HAS_BIAS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    is_row = rows < N
    column = tl.arange(0, BLOCK_K)
    sums = tl.zeros([BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        inside = start + column < K
        tile = tl.load(
            weight + rows[:, None].to(tl.int64) * K + (start + column)[None, :],
            mask=is_row[:, None] & inside[None, :],
            other=0.0,
        )
        values = tl.load(x + start + column, mask=inside, other=0.0)
        sums += tl.sum(tile.to(tl.float32) * values.to(tl.float32)[None, :], 1)
    if HAS_BIAS:
        sums += tl.load(bias + rows, mask=is_row, other=0.0).to(tl.float32)
    tl.store(out + rows, sums.to(out.dtype.element_ty), mask=is_row)


def gemv(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``F.linear`` for x [1, K]; weight [N, K] contiguous."""
    n, k = weight.shape
    out = torch.empty(1, n, dtype=x.dtype, device=x.device)
    block_n, block_k = (4, 1024) if k > _LONG else (2, 2048)
    grid: Any = (triton.cdiv(n, block_n),)
    _gemv_kernel[grid](
        out, x, weight, x if bias is None else bias,
        N=n, K=k, HAS_BIAS=bias is not None, BLOCK_N=block_n,
        BLOCK_K=min(block_k, triton.next_power_of_2(k)), num_warps=4,
    )  # fmt: skip
    return out
