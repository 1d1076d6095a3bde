"""The beginning of a branch of the hidden state: a norm, if any, a product, and a gate, if any.

The norm belongs to the block, which loads it. On a GPU one line takes one kernel for all three.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from quire.kernels.selection import kernels_for, more_lines, one_line
from quire.layers.linear import GPUProduct, Product, by_lines
from quire.layers.norm import NoNorm, Norm, RMSNorm
from quire.layers.spec import Activation

Map = Callable[[Tensor], Tensor]


def normed_product(norm: Norm | None, product: Product) -> Map:
    """The function h -> product(norm(h)); both must have been loaded."""
    in_turn = _in_turn(norm, product)
    if not (isinstance(norm, RMSNorm) and isinstance(product, GPUProduct)):
        return in_turn
    one, weight, bias, rms = one_line(), product.weight, product.bias, norm.parameters
    return by_lines(one.suits, lambda h: one.product(h, weight, bias, rms), in_turn)


def normed_gate(
    norm: Norm | None, product: Product, activation: Activation, device: torch.device
) -> Map:
    """The function h -> activation(gate) * up, the halves of product(norm(h)).

    Norm and product must have been loaded.
    """
    gated = kernels_for(device).gated_activation(activation)
    begin = _in_turn(norm, product)

    def in_turn(h: Tensor) -> Tensor:
        return gated(begin(h))

    if not isinstance(product, GPUProduct):
        return in_turn
    one, weight, bias = one_line(), product.weight, product.bias
    more = more_lines(weight, bias, activation)
    many = in_turn if more is None else by_lines(more.suits, _in_turn(norm, more), in_turn)
    if isinstance(norm, RMSNorm):
        rms = norm.parameters
        return by_lines(
            one.suits, lambda h: one.gated_product(h, weight, bias, rms, activation), many
        )
    before = NoNorm() if norm is None else norm
    return by_lines(
        one.suits, lambda h: one.gated_product(before(h), weight, bias, None, activation), many
    )


def _in_turn(norm: Norm | None, product: Map) -> Map:
    return product if norm is None else lambda h: product(norm(h))
