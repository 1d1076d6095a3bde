"""Operations on each row of a matrix: RMS norms, gates, the place of the largest value."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_float, c_int64, c_void_p
from functools import partial

import torch
from torch import Tensor

from quire.kernels.cpp.library import function, pointer
from quire.kernels.reference import activation as reference

ACTIVATIONS = ("silu", "gelu_quick", "gelu_tanh")  # in the order of rows.cpp


class _NormArgs(ctypes.Structure):
    """``NormArgs`` of rows.cpp."""

    _fields_ = [
        ("x", c_void_p), ("out", c_void_p), ("weight", c_void_p),
        ("num_rows", c_int64), ("size", c_int64), ("is_weight_float", c_int64),
        ("num_threads", c_int64), ("eps", c_float),
    ]  # fmt: skip


class _GateArgs(ctypes.Structure):
    """``GateArgs`` of rows.cpp."""

    _fields_ = [
        ("gate_up", c_void_p), ("out", c_void_p), ("num_rows", c_int64), ("size", c_int64),
        ("kind", c_int64), ("num_threads", c_int64),
    ]  # fmt: skip


class _ArgmaxArgs(ctypes.Structure):
    """``ArgmaxArgs`` of rows.cpp."""

    _fields_ = [
        ("x", c_void_p), ("out", c_void_p), ("num_rows", c_int64), ("size", c_int64),
        ("num_threads", c_int64),
    ]  # fmt: skip


def argmax(x: Tensor) -> Tensor:
    """[N, V] float32 -> [N] int64, the first index of each row's largest value."""
    x, out = x.contiguous(), torch.empty(len(x), dtype=torch.int64)
    num_rows, size = x.shape
    function("argmax", x.dtype)(
        _ArgmaxArgs(
            x=pointer(x),
            out=pointer(out),
            num_rows=num_rows,
            size=size,
            num_threads=torch.get_num_threads(),
        )
    )
    return out


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`reference.norm.rms_norm`; the weight may be float32 where x is not."""
    assert weight.dtype in (x.dtype, torch.float32) and weight.is_contiguous()
    x, size = x.contiguous(), x.shape[-1]
    out = torch.empty_like(x)
    function("rms_norm", x.dtype)(
        _NormArgs(
            x=pointer(x),
            out=pointer(out),
            weight=pointer(weight),
            num_rows=x.numel() // max(1, size),
            size=size,
            is_weight_float=weight.dtype == torch.float32,
            num_threads=torch.get_num_threads(),
            eps=eps,
        )
    )
    return out


def gated(name: str) -> Callable[[Tensor], Tensor]:
    """The gated form of an activation, or a gate of another kind, as a function of gate_up."""
    if name not in ACTIVATIONS:
        return reference.gated(name)
    return partial(gated_activation, name=name)


def gated_activation(gate_up: Tensor, name: str) -> Tensor:
    """`reference.activation.gated_activation`, for an activation of `ACTIVATIONS`."""
    gate_up, size = gate_up.contiguous(), gate_up.shape[-1] // 2
    out = gate_up.new_empty(*gate_up.shape[:-1], size)
    function("gate", gate_up.dtype)(
        _GateArgs(
            gate_up=pointer(gate_up),
            out=pointer(out),
            num_rows=out.numel() // max(1, size),
            size=size,
            kind=ACTIVATIONS.index(name),
            num_threads=torch.get_num_threads(),
        )
    )
    return out
