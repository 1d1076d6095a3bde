"""Gated activations: activation(gate) * up of the two halves of one product."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

NAMES = ("silu", "gelu", "gelu_tanh", "gelu_quick", "relu", "relu2")
_BLOCK = 1024  # values of one program
_WARPS = 4
_SQRT_2_OVER_PI = tl.constexpr(0.7978845608028654)
_SQRT_HALF = tl.constexpr(0.7071067811865476)


@triton.jit
def activate(x, KIND: tl.constexpr):
    """Activation ``NAMES[KIND]`` of float32 x."""
    if KIND == 0:
        return x * tl.sigmoid(x)
    elif KIND == 1:
        return 0.5 * x * (1.0 + tl.erf(x * _SQRT_HALF))
    elif KIND == 2:
        inner = _SQRT_2_OVER_PI * (x + 0.044715 * x * x * x)
        return x * tl.sigmoid(2.0 * inner)  # 0.5 (1 + tanh(y)) = sigmoid(2 y)
    elif KIND == 3:
        return x * tl.sigmoid(1.702 * x)
    else:
        positive = tl.where(x < 0.0, 0.0, x)  # of NaN, NaN
        return positive if KIND == 4 else positive * positive


@triton.jit
def _gated_kernel(
    out, gate_up,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, KIND: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < SIZE
    await_inputs(DEPENDENT)
    gate = tl.load(gate_up + line * 2 * SIZE + column, mask=inside, other=0.0)
    up = tl.load(gate_up + line * 2 * SIZE + SIZE + column, mask=inside, other=0.0)
    # rounded as if the activation had been stored by a kernel of its own
    product = activate(gate.to(tl.float32), KIND).to(gate.dtype) * up
    tl.store(out + line * SIZE + column, product, mask=inside)


def gated_activation(gate_up: Tensor, name: str) -> Tensor:
    """`reference.activation.gated_activation` of gate_up [T, 2 I]."""
    num_lines, size = len(gate_up), gate_up.shape[1] // 2
    out = torch.empty(num_lines, size, dtype=gate_up.dtype, device=gate_up.device)
    block = min(_BLOCK, triton.next_power_of_2(size))
    grid: Any = (num_lines, triton.cdiv(size, block))
    launcher_of(_gated_kernel, grid)(
        out, gate_up, SIZE=size, BLOCK=block, KIND=NAMES.index(name),
        num_warps=_WARPS, **dependent_launch(),
    )  # fmt: skip
    return out


def gated(name: str) -> Callable[[Tensor], Tensor]:
    """The gated form of an activation of `NAMES`."""
    return partial(gated_activation, name=name)
