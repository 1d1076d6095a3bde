"""Norms over the last dimension, one program per line."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_WARP_VALUES = 512  # of a line, per warp


@triton.jit
def _rms_norm_kernel(
    out, x, weight, eps,
    SIZE: tl.constexpr, PADDED: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = column < SIZE
    gain = tl.load(weight + column, mask=inside, other=0.0)
    await_inputs(DEPENDENT)
    values = tl.load(x + line * SIZE + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 0) / SIZE + eps)
    scaled = values * scale * gain.to(tl.float32)
    tl.store(out + line * SIZE + column, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _layer_norm_kernel(
    out, x, weight, bias, eps,
    SIZE: tl.constexpr, PADDED: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = column < SIZE
    if HAS_WEIGHT:
        gain = tl.load(weight + column, mask=inside, other=0.0)
    if HAS_BIAS:
        shift = tl.load(bias + column, mask=inside, other=0.0)
    await_inputs(DEPENDENT)
    values = tl.load(x + line * SIZE + column, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, values - tl.sum(values, 0) / SIZE, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred, 0) / SIZE + eps)
    if HAS_WEIGHT:
        scaled *= gain.to(tl.float32)
    if HAS_BIAS:
        scaled += shift.to(tl.float32)
    tl.store(out + line * SIZE + column, scaled.to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`reference.norm.rms_norm` over the last dimension."""
    x = x.contiguous()
    out = torch.empty_like(x)
    size = x.shape[-1]
    launcher_of(_rms_norm_kernel, (x.numel() // size,))(
        out, x, weight, eps, SIZE=size, **_launch(size)
    )
    return out


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`reference.norm.layer_norm` over the last dimension."""
    x = x.contiguous()
    out = torch.empty_like(x)
    size = x.shape[-1]
    launcher_of(_layer_norm_kernel, (x.numel() // size,))(
        out, x, x if weight is None else weight, x if bias is None else bias, eps, SIZE=size,
        HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, **_launch(size),
    )  # fmt: skip
    return out


def _launch(size: int) -> dict[str, Any]:
    padded = triton.next_power_of_2(size)
    return {
        "PADDED": padded,
        "num_warps": min(16, max(1, padded // _WARP_VALUES)),
        **dependent_launch(),
    }
