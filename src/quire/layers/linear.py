"""Linear maps: one matrix product for all parts that share an input.

Knows the fastest product on each device; what comes before a product is in `normed`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cpu import onednn
from quire.kernels.selection import more_lines, one_line
from quire.weights.reader import TensorReader

Rest = ParamSpec("Rest")
Result = TypeVar("Result")


class Product(Protocol):
    """x -> x Wᵀ + b, with the weight in the layout that is fastest."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h += x Wᵀ + b, in place."""
        ...


class PlainProduct:
    """A product by torch with the weight as it is."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self.weight = weight
        self.bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def add_to(self, x: Tensor, h: Tensor) -> None:
        h += self(x)


class GPUProduct(PlainProduct):
    """A product with the weight as it is. One line of x has a kernel of its own, several lines may
    have another, and torch has the rest."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, gated: bool = False, room: int = 0
    ) -> None:
        super().__init__(weight, bias)
        one, more = one_line(), None if gated else more_lines(weight, bias, None, room)
        product: Callable[[Tensor], Tensor] = super().__call__
        add: Callable[[Tensor, Tensor], None] = self._add_many
        if more is not None:
            product = by_lines(more.suits, more, product)
            add = by_lines(more.suits, more.add_to, add)
        self._product = by_lines(one.suits, lambda x: one.product(x, weight, bias, None), product)
        self._add = by_lines(one.suits, lambda x, h: one.add_product(x, h, weight, bias), add)

    def __call__(self, x: Tensor) -> Tensor:
        return self._product(x)

    def add_to(self, x: Tensor, h: Tensor) -> None:
        self._add(x, h)

    def _add_many(self, x: Tensor, h: Tensor) -> None:
        h.addmm_(x, self.weight.t())
        if self.bias is not None:
            h += self.bias


def by_lines(
    suits: Callable[[int], bool],
    special: Callable[Concatenate[Tensor, Rest], Result],
    usual: Callable[Concatenate[Tensor, Rest], Result],
) -> Callable[Concatenate[Tensor, Rest], Result]:
    """A function that calls ``special`` if it suits the number of lines of x, else ``usual``."""

    def call(x: Tensor, *args: Rest.args, **kwargs: Rest.kwargs) -> Result:
        return (special if suits(len(x)) else usual)(x, *args, **kwargs)

    return call


def fastest_product(
    weight: Tensor, bias: Tensor | None = None, *, gated: bool = False, room: int = 0
) -> Product:
    """The product for this weight [out, in] and device.

    ``gated``: the weight's halves are gate and up, and `normed.normed_gate` has kernels for product
    and gate together; so none for several lines is made here. ``room`` is that of `more_lines`.
    """
    if weight.device.type == "cuda":
        return GPUProduct(weight, bias, gated=gated, room=room)
    if onednn.why_not(weight.device.type, weight.dtype):
        return PlainProduct(weight, bias)
    return onednn.PackedLinear(weight, bias)


class Linear:
    """One linear map of one or more tensors, stacked: q, k and v; gate and up; or a single one."""

    def __init__(
        self, in_size: int, out_sizes: dict[str, int], *, bias: bool, gated: bool = False
    ) -> None:
        self._in_size = in_size
        self._out_sizes = out_sizes
        self._bias = bias
        self._gated = gated
        self.product: Product

    def load(self, reader: TensorReader, prefix: str, *, room: int = 0) -> None:
        """``room`` is that of `fastest_product`."""
        weights = [
            reader.read(f"{prefix}.{name}.weight", (size, self._in_size))
            for name, size in self._out_sizes.items()
        ]
        biases = [
            reader.read(f"{prefix}.{name}.bias", (size,))
            for name, size in self._out_sizes.items()
            if self._bias
        ]
        bias = _stacked(biases) if biases else None
        self.product = fastest_product(_stacked(weights), bias, gated=self._gated, room=room)

    def __call__(self, x: Tensor) -> Tensor:
        return self.product(x)

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h += self(x), in place."""
        self.product.add_to(x, h)


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
