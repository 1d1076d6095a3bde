"""Feed-forward parts: gated and plain.

Each begins with the norm it is given, if any. ``add_to`` adds its output to its input, ``branch``
returns the output.
"""

from __future__ import annotations

from torch import Tensor

from quire.kernels.reference.activation import ACTIVATIONS
from quire.layers.linear import Linear
from quire.layers.norm import Norm
from quire.layers.normed import Map, normed_gate, normed_product
from quire.layers.spec import GatedMLPSpec, PlainMLPSpec
from quire.weights.reader import TensorReader


class GatedMLP:
    """h += down(activation(gate(x)) * up(x)) for x = norm(h); gate and up are one product."""

    def __init__(self, spec: GatedMLPSpec) -> None:
        inner = {"gate": spec.inner_size, "up": spec.inner_size}
        self.gate_up = Linear(spec.hidden_size, inner, bias=spec.bias, gated=True)
        self.down = Linear(spec.inner_size, {"down": spec.hidden_size}, bias=spec.bias)
        self._activation = spec.activation
        self._inner: Map  # h -> the input of the down product

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        self.gate_up.load(reader, prefix)
        self.down.load(reader, prefix)
        self._inner = normed_gate(norm, self.gate_up.product, self._activation, reader.device)

    def add_to(self, h: Tensor) -> None:
        self.down.add_to(self._inner(h), h)

    def branch(self, h: Tensor) -> Tensor:
        return self.down(self._inner(h))


class PlainMLP:
    """h += down(activation(up(norm(h))))."""

    def __init__(self, spec: PlainMLPSpec) -> None:
        self.up = Linear(spec.hidden_size, {"up": spec.inner_size}, bias=spec.bias)
        self.down = Linear(spec.inner_size, {"down": spec.hidden_size}, bias=spec.bias)
        self._activation = ACTIVATIONS[spec.activation]
        self._up: Map

    def load(self, reader: TensorReader, prefix: str, norm: Norm | None) -> None:
        self.up.load(reader, prefix)
        self.down.load(reader, prefix)
        self._up = normed_product(norm, self.up.product)

    def add_to(self, h: Tensor) -> None:
        self.down.add_to(self._activation(self._up(h)), h)

    def branch(self, h: Tensor) -> Tensor:
        return self.down(self._activation(self._up(h)))
