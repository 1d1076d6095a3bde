"""Activation functions of MLPs, and their gated form."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

Elementwise = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh approximation (``gelu_new`` and ``gelu_pytorch_tanh`` of transformers)."""
    return F.gelu(x, approximate="tanh")


def gelu_quick(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def relu_squared(x: Tensor) -> Tensor:
    return F.relu(x).square_()


def gated_activation(gate_up: Tensor, activation: Elementwise) -> Tensor:
    """activation(gate) * up, where ``gate_up`` [T, 2 I] holds both side by side."""
    gate, up = gate_up.chunk(2, dim=-1)
    return activation(gate).mul_(up)


def swiglu_oss(gate_up: Tensor) -> Tensor:
    """The gate of gpt-oss: gate and up are clamped, and one is added to up."""
    gate, up = gate_up.chunk(2, dim=-1)
    gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


ACTIVATIONS: dict[str, Elementwise] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "gelu_quick": gelu_quick,
    "relu": F.relu,
    "relu2": relu_squared,
}


def gated(name: str) -> Elementwise:
    """The gated form of an activation, or a gate of another kind, as a function of gate_up."""
    return _GATES[name]


_GATES: dict[str, Elementwise] = {
    **{
        name: partial(gated_activation, activation=activation)
        for name, activation in ACTIVATIONS.items()
    },
    "swiglu_oss": swiglu_oss,
}
