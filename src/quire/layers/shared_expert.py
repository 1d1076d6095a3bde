"""The gated MLP beside the experts of a mixture, which every token goes through."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from quire.layers.linear import Linear
from quire.layers.moe_spec import SharedExpertSpec
from quire.layers.normed import Map, normed_gate
from quire.weights.reader import TensorReader


class SharedExpert:
    """h += down(activation(gate(x)) * up(x)); x is normed already."""

    def __init__(self, spec: SharedExpertSpec) -> None:
        mlp = spec.mlp
        inner = {"gate": mlp.inner_size, "up": mlp.inner_size}
        self._spec = spec
        self._gate_up = Linear(mlp.hidden_size, inner, bias=mlp.bias, gated=True)
        self._down = Linear(mlp.inner_size, {"down": mlp.hidden_size}, bias=mlp.bias)
        self._inner: Map  # x -> the input of the down product

    def load(self, reader: TensorReader, prefix: str) -> None:
        self._gate_up.load(reader, prefix)
        self._down.load(reader, prefix)
        product, activation = self._gate_up.product, self._spec.mlp.activation
        self._inner = normed_gate(None, product, activation, reader.device)

    def add_to(self, x: Tensor, h: Tensor) -> None:
        self._down.add_to(self._inner(x), h)


class WeighedSharedExpert(SharedExpert):
    """A shared expert whose output is multiplied by sigmoid(w · x)."""

    def load(self, reader: TensorReader, prefix: str) -> None:
        super().load(reader, prefix)
        name = "shared_gate.weight"
        self._weight = reader.read(f"{prefix}.{name}", self._spec.parameters()[name])

    def add_to(self, x: Tensor, h: Tensor) -> None:
        share = F.linear(x, self._weight).sigmoid()
        h.addcmul_(share, self._down(self._inner(x)))


def build_shared_expert(spec: SharedExpertSpec) -> SharedExpert:
    return WeighedSharedExpert(spec) if spec.gated else SharedExpert(spec)
