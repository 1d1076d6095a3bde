"""Feed-forward parts: gated and plain."""

from __future__ import annotations

from torch import Tensor

from quire.kernels.reference.activation import ACTIVATIONS, Elementwise
from quire.kernels.selection import kernels_for
from quire.layers.linear import Linear
from quire.layers.spec import GatedMLPSpec, PlainMLPSpec
from quire.weights.reader import TensorReader


class GatedMLP:
    """down(activation(gate(x)) * up(x)); gate and up are one product."""

    def __init__(self, spec: GatedMLPSpec) -> None:
        inner = {"gate": spec.inner_size, "up": spec.inner_size}
        self.gate_up = Linear(spec.hidden_size, inner, bias=spec.bias)
        self.down = Linear(spec.inner_size, {"down": spec.hidden_size}, bias=spec.bias)
        self._activation = spec.activation
        self._gated: Elementwise

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._gated = kernels_for(reader.device).gated_activation(self._activation)
        self.gate_up.load(reader, prefix)
        self.down.load(reader, prefix)

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self._gated(self.gate_up(x)))


class PlainMLP:
    """down(activation(up(x)))."""

    def __init__(self, spec: PlainMLPSpec) -> None:
        self.up = Linear(spec.hidden_size, {"up": spec.inner_size}, bias=spec.bias)
        self.down = Linear(spec.inner_size, {"down": spec.hidden_size}, bias=spec.bias)
        self._activation = ACTIVATIONS[spec.activation]

    def load(self, reader: TensorReader, prefix: str) -> None:
        self.up.load(reader, prefix)
        self.down.load(reader, prefix)

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(self._activation(self.up(x)))
