"""How a branch of the hidden state begins: a norm, the product after it, and perhaps a gate.

The norm belongs to the block, which loads it. On a GPU all of it is one kernel for few lines.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quire.kernels.selection import few_lines, kernels_for
from quire.layers.linear import GPUProduct, Product, by_lines
from quire.layers.norm import Norm, RMSNorm
from quire.layers.spec import Activation

Map = Callable[[Tensor], Tensor]


def normed_product(norm: Norm, product: Product) -> Map:
    """product(norm(h)); both are loaded."""

    def in_turn(h: Tensor) -> Tensor:
        return product(norm(h))

    if not (isinstance(norm, RMSNorm) and isinstance(product, GPUProduct)):
        return in_turn
    few, weight, bias, rms = few_lines(), product.weight, product.bias, norm.parameters
    return by_lines(lambda h: few.product(h, weight, bias, rms), in_turn)


def normed_gate(norm: Norm, product: Product, activation: Activation, device: torch.device) -> Map:
    """activation(gate) * up of the halves of product(norm(h)); both are loaded."""
    gated = kernels_for(device).gated_activation(activation)

    def in_turn(h: Tensor) -> Tensor:
        return gated(product(norm(h)))

    if not (isinstance(norm, RMSNorm) and isinstance(product, GPUProduct)):
        return in_turn
    few, weight, bias, rms = few_lines(), product.weight, product.bias, norm.parameters
    if activation not in few.activations:
        return in_turn
    return by_lines(lambda h: few.gated_product(h, weight, bias, rms, activation), in_turn)
