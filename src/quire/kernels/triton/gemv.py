"""Products of one line with a weight, whose time is that of reading the weight.

A program holds whole rows of the weight in registers, and reads them before it waits for the line
(see `launch`), so that the weights of one kernel arrive while the one before it computes. The
multiplications are few, so they need no matrix unit. What comes before a product (an RMS norm of
the line) and after it (a gated activation, the addition to the hidden state) is done in the same
launch: each program repeats the norm, which costs less than another launch.

From two lines on cuBLAS is as fast (benchmarks/RESULTS.md). In float32 inside; twins are `F.linear`
after `reference.norm.rms_norm` and before `reference.activation.gated_activation`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.shapes import RMS
from quire.kernels.triton.activation import NAMES, activate
from quire.kernels.triton.launch import await_inputs, dependent_launch, prefer_cache

_WARP = 32
_ROW_VALUES = 32  # of one row per thread, unless the row is too long or short for that
_TILE_BYTES = 256  # of the weight per thread: a quarter of its registers
_MOST_ROWS = 8
_MOST_WARPS = 8
_ALONE = 8192  # a longer row has a program of its own


@triton.jit
def _load_rows(
    weight, rows, column, N: tl.constexpr, K: tl.constexpr,
    BLOCK_N: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    where = weight + rows[:, None].to(tl.int64) * K + column[None, :]
    if N % BLOCK_N == 0 and K == PADDED:
        return tl.load(where, eviction_policy="evict_first")
    inside = (rows < N)[:, None] & (column < K)[None, :]
    return tl.load(where, mask=inside, other=0.0, eviction_policy="evict_first")


@triton.jit
def _gemv_kernel(
    out, x, weight, bias, gains, eps,
    N: tl.constexpr, K: tl.constexpr, PADDED: tl.constexpr,
    HAS_BIAS: tl.constexpr, NORMS: tl.constexpr, ADDS: tl.constexpr,
    BLOCK_N: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, PADDED)
    is_row, inside = rows < N, column < K
    tile = _load_rows(weight, rows, column, N, K, BLOCK_N, PADDED)
    if NORMS:
        gain = tl.load(gains + column, mask=inside, other=0.0)
    if HAS_BIAS:
        shift = tl.load(bias + rows, mask=is_row, other=0.0)
    await_inputs(DEPENDENT)
    values = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    if ADDS:
        before = tl.load(out + rows, mask=is_row, other=0.0)
    if NORMS:
        # the scale of the norm is applied to the sums, which so need not wait for it
        scale = tl.rsqrt(tl.sum(values * values, 0) / K + eps)
        values *= gain.to(tl.float32)
    sums = tl.sum(tile.to(tl.float32) * values[None, :], 1)
    if NORMS:
        sums *= scale
    if HAS_BIAS:
        sums += shift.to(tl.float32)
    if ADDS:
        sums += before.to(tl.float32)
    tl.store(out + rows, sums.to(out.dtype.element_ty), mask=is_row)


@triton.jit
def _gated_gemv_kernel(
    out, x, weight, bias, gains, eps,
    N: tl.constexpr, K: tl.constexpr, PADDED: tl.constexpr,
    HAS_BIAS: tl.constexpr, NORMS: tl.constexpr, KIND: tl.constexpr,
    BLOCK_N: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    column = tl.arange(0, PADDED)
    is_row, inside = rows < N, column < K
    gate_tile = _load_rows(weight, rows, column, N, K, BLOCK_N, PADDED)
    up_tile = _load_rows(weight + N * K, rows, column, N, K, BLOCK_N, PADDED)
    if NORMS:
        gain = tl.load(gains + column, mask=inside, other=0.0)
    if HAS_BIAS:
        gate_shift = tl.load(bias + rows, mask=is_row, other=0.0)
        up_shift = tl.load(bias + N + rows, mask=is_row, other=0.0)
    await_inputs(DEPENDENT)
    values = tl.load(x + column, mask=inside, other=0.0).to(tl.float32)
    if NORMS:
        scale = tl.rsqrt(tl.sum(values * values, 0) / K + eps)
        values *= gain.to(tl.float32)
    gate = tl.sum(gate_tile.to(tl.float32) * values[None, :], 1)
    up = tl.sum(up_tile.to(tl.float32) * values[None, :], 1)
    if NORMS:
        gate *= scale
        up *= scale
    if HAS_BIAS:
        gate += gate_shift.to(tl.float32)
        up += up_shift.to(tl.float32)
    active = activate(gate, KIND) * up
    tl.store(out + rows, active.to(out.dtype.element_ty), mask=is_row)


def gemv(x: Tensor, weight: Tensor, bias: Tensor | None, norm: RMS | None = None) -> Tensor:
    """``F.linear`` of one line x [1, K], after ``norm`` if there is one; weight [N, K]."""
    out = torch.empty(1, len(weight), dtype=x.dtype, device=x.device)
    _launch_gemv(out, x, weight, bias, norm, adds=False)
    return out


def add_gemv(x: Tensor, h: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """h [1, N] += ``F.linear`` of one line x [1, K]; weight [N, K]."""
    _launch_gemv(h, x, weight, bias, None, adds=True)


def gated_gemv(
    x: Tensor, weight: Tensor, bias: Tensor | None, norm: RMS | None, activation: str
) -> Tensor:
    """activation(gate) * up of one line x [1, K], after ``norm`` if any; weight [2 N, K]."""
    assert len(x) == 1 and x.is_contiguous() and weight.is_contiguous()
    n, k = len(weight) // 2, x.shape[1]
    out = torch.empty(1, n, dtype=x.dtype, device=x.device)
    block_n, num_warps = tile_of(k, 2 * weight.element_size())
    gains, eps = norm or (x, 0.0)
    grid: Any = (triton.cdiv(n, block_n),)
    launched = launcher_of(_gated_gemv_kernel, grid)(
        out, x, weight, x if bias is None else bias, gains, eps,
        N=n, K=k, PADDED=triton.next_power_of_2(k),
        HAS_BIAS=bias is not None, NORMS=norm is not None, KIND=NAMES.index(activation),
        BLOCK_N=block_n, num_warps=num_warps, **dependent_launch(),
    )  # fmt: skip
    prefer_cache(launched)
    return out


def _launch_gemv(
    out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, norm: RMS | None, *, adds: bool
) -> None:
    assert len(x) == 1 and x.is_contiguous() and weight.is_contiguous() and out.is_contiguous()
    n, k = weight.shape
    block_n, num_warps = tile_of(k, weight.element_size())
    gains, eps = norm or (x, 0.0)
    grid: Any = (triton.cdiv(n, block_n),)
    launched = launcher_of(_gemv_kernel, grid)(
        out, x, weight, x if bias is None else bias, gains, eps,
        N=n, K=k, PADDED=triton.next_power_of_2(k),
        HAS_BIAS=bias is not None, NORMS=norm is not None, ADDS=adds,
        BLOCK_N=block_n, num_warps=num_warps, **dependent_launch(),
    )  # fmt: skip
    if adds:  # other products stand before attention, which takes the cache back, or find it so
        prefer_cache(launched)


def tile_of(k: int, value_bytes: int) -> tuple[int, int]:
    """(rows, warps) of a program for sums of ``k`` values."""
    padded = triton.next_power_of_2(k)
    num_warps = min(_MOST_WARPS, max(1, padded // (_WARP * _ROW_VALUES)))
    if padded > _ALONE:
        return 1, num_warps
    row_bytes = max(1, padded // (_WARP * num_warps)) * value_bytes
    return max(1, min(_MOST_ROWS, _TILE_BYTES // row_bytes)), num_warps
