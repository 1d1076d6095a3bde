"""Norms fused with the residual addition before them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _rms_norm_kernel(
    out, x, residual, weight, x_stride, eps,
    SIZE: tl.constexpr, PADDED: tl.constexpr, ADDS: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = column < SIZE
    values = tl.load(x + line * x_stride + column, mask=inside, other=0.0)
    if ADDS:
        # rounded to the model's dtype, as the sum is stored
        values = values + tl.load(residual + line * SIZE + column, mask=inside, other=0.0)
        tl.store(residual + line * SIZE + column, values, mask=inside)
    values = values.to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, 0) / SIZE + eps)
    scaled = values * scale * tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + line * SIZE + column, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _layer_norm_kernel(
    out, x, residual, weight, bias, x_stride, eps,
    SIZE: tl.constexpr, PADDED: tl.constexpr, ADDS: tl.constexpr,
    HAS_WEIGHT: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, PADDED)
    inside = column < SIZE
    values = tl.load(x + line * x_stride + column, mask=inside, other=0.0)
    if ADDS:
        values = values + tl.load(residual + line * SIZE + column, mask=inside, other=0.0)
        tl.store(residual + line * SIZE + column, values, mask=inside)
    values = values.to(tl.float32)
    centred = tl.where(inside, values - tl.sum(values, 0) / SIZE, 0.0)
    scaled = centred * tl.rsqrt(tl.sum(centred * centred, 0) / SIZE + eps)
    if HAS_WEIGHT:
        scaled *= tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    if HAS_BIAS:
        scaled += tl.load(bias + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + line * SIZE + column, scaled.to(out.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`reference.norm.rms_norm` over the last dimension of a contiguous x."""
    out = torch.empty_like(x)
    size = x.shape[-1]
    _rms_norm_kernel[(x.numel() // size,)](
        out, x, x, weight, size, eps, SIZE=size, ADDS=False, **_launch(size)
    )
    return out


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
    """residual += x [T, E]; the norm of the sum."""
    out = torch.empty_like(residual)
    size = x.shape[-1]
    _rms_norm_kernel[(len(x),)](
        out, x, residual, weight, x.stride(0), eps, SIZE=size, ADDS=True, **_launch(size)
    )
    return out


def layer_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """`reference.norm.layer_norm` over the last dimension of a contiguous x."""
    return _layer_norm(x, x, weight, bias, eps, adds=False)


def add_layer_norm(
    x: Tensor, residual: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """residual += x [T, E]; the norm of the sum."""
    return _layer_norm(x, residual, weight, bias, eps, adds=True)


def _layer_norm(
    x: Tensor,
    residual: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    *,
    adds: bool,
) -> Tensor:
    out = torch.empty_like(residual)
    size = x.shape[-1]
    _layer_norm_kernel[(x.numel() // size,)](
        out, x, residual, x if weight is None else weight, x if bias is None else bias,
        size, eps, SIZE=size, ADDS=adds,
        HAS_WEIGHT=weight is not None, HAS_BIAS=bias is not None, **_launch(size),
    )  # fmt: skip
    return out


def _launch(size: int) -> dict[str, int]:
    padded = triton.next_power_of_2(size)
    return {"PADDED": padded, "num_warps": min(16, max(1, padded // 512))}
