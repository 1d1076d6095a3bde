"""The experts of a few tokens: each pair reads its expert's rows for itself.

Few tokens hardly share experts, so pairs are not sorted: one launch for gate and up, one for down,
which sums a token's experts and adds to the hidden state. Time goes into reading weights: many
small programs keep many bytes of them in flight.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.moe import Routing
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, await_then_release, dependent_launch
from quire.kernels.triton.moe_gating import GATINGS, join

_GATE_UP_ROWS = 2  # of gate and as many of up, in one program
_GATE_UP_STEP = 2048  # columns at once
_DOWN_ROWS = 4
_DOWN_VALUES = 8192


@triton.jit
def _gate_up_lines_kernel(
    inner, x, weight, bias, experts,
    TOP_K: tl.constexpr, SIZE: tl.constexpr, H: tl.constexpr, KIND: tl.constexpr,
    HAS_BIAS: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_then_release(DEPENDENT)
    pair = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < SIZE
    expert = tl.load(experts + pair).to(tl.int64)
    gate_at = weight + (expert * 2 * SIZE + row)[:, None] * H
    gate = tl.zeros([ROWS, STEP], tl.float32)
    up = tl.zeros([ROWS, STEP], tl.float32)
    for start in tl.static_range(0, H, STEP):
        column = start + tl.arange(0, STEP)
        inside = is_row[:, None] & (column < H)[None, :]
        gate_tile = tl.load(gate_at + column[None, :], mask=inside, other=0.0)
        up_tile = tl.load(gate_at + SIZE * H + column[None, :], mask=inside, other=0.0)
        values = tl.load(x + pair // TOP_K * H + column, mask=column < H, other=0.0)
        values = values.to(tl.float32)[None, :]
        gate += gate_tile.to(tl.float32) * values
        up += up_tile.to(tl.float32) * values
    gates, ups = tl.sum(gate, 1), tl.sum(up, 1)
    if HAS_BIAS:
        bias_at = bias + expert * 2 * SIZE + row
        gates += tl.load(bias_at, mask=is_row, other=0.0).to(tl.float32)
        ups += tl.load(bias_at + SIZE, mask=is_row, other=0.0).to(tl.float32)
    active = join(gates, ups, KIND)
    tl.store(inner + pair * SIZE + row, active.to(inner.dtype.element_ty), mask=is_row)


@triton.jit
def _down_lines_kernel(
    h, inner, weight, bias, experts, shares,
    TOP_K: tl.constexpr, SIZE: tl.constexpr, H: tl.constexpr, HAS_BIAS: tl.constexpr,
    K_PAD: tl.constexpr, ROWS: tl.constexpr, STEP: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    """Runs right after `_gate_up_lines_kernel` of the same routing, and reads the routing before it
    waits: so the first values of its weight arrive while that kernel computes."""
    token = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < H
    slot = tl.arange(0, K_PAD)
    is_slot = slot < TOP_K
    pair = token * TOP_K + slot
    expert = tl.load(experts + pair, mask=is_slot, other=0).to(tl.int64)
    share = tl.load(shares + pair, mask=is_slot, other=0.0)
    column = tl.arange(0, STEP)
    rows_at = weight + (expert[:, None] * H + row[None, :]) * SIZE
    rows_at = rows_at[:, :, None] + column[None, None, :]
    is_line = (is_slot[:, None] & is_row[None, :])[:, :, None]
    tile = tl.load(rows_at, mask=is_line & (column < SIZE)[None, None, :], other=0.0)
    await_inputs(DEPENDENT)
    before = tl.load(h + token * H + row, mask=is_row, other=0.0).to(tl.float32)
    sums = tl.zeros([K_PAD, ROWS], tl.float32)
    for start in tl.static_range(0, SIZE, STEP):
        inside = start + column < SIZE
        if start > 0:
            tile = tl.load(rows_at + start, mask=is_line & inside[None, None, :], other=0.0)
        values = tl.load(
            inner + pair[:, None] * SIZE + start + column[None, :],
            mask=is_slot[:, None] & inside[None, :],
            other=0.0,
        )
        sums += tl.sum(tile.to(tl.float32) * values.to(tl.float32)[:, None, :], 2)
    if HAS_BIAS:
        bias_at = bias + expert[:, None] * H + row[None, :]
        found = tl.load(bias_at, mask=is_slot[:, None] & is_row[None, :], other=0.0)
        sums += found.to(tl.float32)
    total = before + tl.sum(sums * share[:, None], 0)
    tl.store(h + token * H + row, total.to(h.dtype.element_ty), mask=is_row)


def gate_up_lines(
    x: Tensor, experts: Tensor, weight: Tensor, gating: str, bias: Tensor | None = None
) -> Tensor:
    """`reference.moe.gate_up` for few tokens."""
    assert x.is_contiguous() and weight.is_contiguous()
    (num_tokens, hidden), top_k, size = x.shape, experts.shape[1], weight.shape[1] // 2
    inner = torch.empty(num_tokens * top_k, size, dtype=x.dtype, device=x.device)
    grid: Any = (triton.cdiv(size, _GATE_UP_ROWS), num_tokens * top_k)
    launcher_of(_gate_up_lines_kernel, grid)(
        inner, x, weight, weight if bias is None else bias, experts,
        TOP_K=top_k, SIZE=size, H=hidden, KIND=GATINGS.index(gating), HAS_BIAS=bias is not None,
        ROWS=_GATE_UP_ROWS, STEP=min(_GATE_UP_STEP, triton.next_power_of_2(hidden)),
        num_warps=4, **dependent_launch(),
    )  # fmt: skip
    return inner


def add_down_lines(
    h: Tensor, inner: Tensor, routing: Routing, weight: Tensor, bias: Tensor | None = None
) -> None:
    """`reference.moe.down` for few tokens, and `reference.moe.add_sums` of its results to h [T, H].

    The launch right before it must be `gate_up_lines` of the same routing.
    """
    assert h.is_contiguous() and weight.is_contiguous()
    top_k, (_, hidden, size) = routing.experts.shape[1], weight.shape
    k_pad = triton.next_power_of_2(top_k)
    step = _DOWN_VALUES // (k_pad * _DOWN_ROWS)
    grid: Any = (triton.cdiv(hidden, _DOWN_ROWS), len(h))
    launcher_of(_down_lines_kernel, grid)(
        h, inner, weight, weight if bias is None else bias, routing.experts, routing.weights,
        TOP_K=top_k, SIZE=size, H=hidden, HAS_BIAS=bias is not None,
        K_PAD=k_pad, ROWS=_DOWN_ROWS, STEP=min(step, triton.next_power_of_2(size)),
        num_warps=4, **dependent_launch(),
    )  # fmt: skip
