"""Linear maps: one matrix product for all parts that share an input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cpu import onednn
from quire.kernels.selection import single_line_product
from quire.weights.reader import TensorReader


class Product(Protocol):
    """x -> x Wᵀ + b, with the weight in whatever layout is fastest."""

    def __call__(self, x: Tensor) -> Tensor: ...


class PlainProduct:
    """The weight as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self._weight, self._bias)


class GPUProduct(PlainProduct):
    """As it is too, but a single line of x takes a kernel of its own."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(weight, bias)
        self._single_line = single_line_product()

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) == 1:
            return self._single_line(x, self._weight, self._bias)
        return super().__call__(x)


def fastest_product(weight: Tensor, bias: Tensor | None = None) -> Product:
    """The product for this weight [out, in] and device."""
    if weight.device.type == "cuda":
        return GPUProduct(weight, bias)
    if onednn.why_not(weight.device.type, weight.dtype):
        return PlainProduct(weight, bias)
    return onednn.PackedLinear(weight, bias)


class Linear:
    """Parts of one or more canonical tensors, stacked: q, k and v; gate and up; or a single one."""

    def __init__(self, in_size: int, out_sizes: dict[str, int], *, bias: bool) -> None:
        self._in_size = in_size
        self._out_sizes = out_sizes
        self._bias = bias
        self.product: Product

    def load(self, reader: TensorReader, prefix: str) -> None:
        weights = [
            reader.read(f"{prefix}.{name}.weight", (size, self._in_size))
            for name, size in self._out_sizes.items()
        ]
        biases = [
            reader.read(f"{prefix}.{name}.bias", (size,))
            for name, size in self._out_sizes.items()
            if self._bias
        ]
        self.product = fastest_product(_stacked(weights), _stacked(biases) if biases else None)

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
