"""Mixture of experts: a router sends each token through a few gated MLPs.

How tokens are routed is a function (`Route`), and how experts are computed an object (`Experts`);
both are chosen when the weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.kernels.reference.moe import Routing
from quire.layers.linear import Linear, fastest_product
from quire.layers.spec import MoESpec
from quire.weights.reader import TensorReader

Route = Callable[[Tensor], Routing]  # of the router's logits [T, experts]


class Experts(Protocol):
    """The gated MLPs of one layer."""

    def add_to(self, x: Tensor, routing: Routing, h: Tensor) -> None:
        """h [T, H] += the shares of x [T, H] at each token's experts."""
        ...


class MoE:
    """``route`` is looked up at every call: wrap it before a graph is captured to see routings."""

    def __init__(self, spec: MoESpec) -> None:
        self._spec = spec
        self.router = Linear(spec.hidden_size, {"router": spec.num_experts}, bias=False)
        self.route: Route
        self.experts: Experts

    def load(self, reader: TensorReader, prefix: str) -> None:
        self.router.load(reader, prefix)
        self.route = _route_for(reader.device, self._spec)
        gate_up = self._read_gate_up(reader, prefix)
        name = "experts.down.weight"
        down = reader.read(f"{prefix}.{name}", self._spec.parameters()[name])
        self.experts = _experts_for(reader.device, gate_up, down, self._spec)

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h [T, H] += this layer's output for x [T, H]."""
        self.experts.add_to(x, self.route(self.router(x)), h)

    def _read_gate_up(self, reader: TensorReader, prefix: str) -> Tensor:
        """Gate above up of each expert; only one of the two is ever held twice."""
        shape = self._spec.parameters()["experts.gate.weight"]
        num_experts, inner, hidden = shape
        gate = reader.read(f"{prefix}.experts.gate.weight", shape)
        gate_up = gate.new_empty(num_experts, 2 * inner, hidden)
        gate_up[:, :inner] = gate
        del gate
        gate_up[:, inner:] = reader.read(f"{prefix}.experts.up.weight", shape)
        return gate_up


class HostExperts:
    """Pairs in the order of their experts, then a product for each expert that has any."""

    def __init__(self, gate_up: Tensor, down: Tensor, activation: str) -> None:
        self._gate_ups = [fastest_product(weight) for weight in gate_up.unbind(0)]
        self._downs = [fastest_product(weight) for weight in down.unbind(0)]
        self._activation = ACTIVATIONS[activation]

    def add_to(self, x: Tensor, routing: Routing, h: Tensor) -> None:
        num_tokens, top_k = routing.experts.shape
        flat = routing.experts.flatten()
        order = flat.argsort(stable=True)
        gathered = x.index_select(0, order // top_k)
        results = torch.empty_like(gathered)
        start = 0
        # sync: experts are called one by one from the host
        for expert, count in enumerate(flat.bincount(minlength=len(self._downs)).tolist()):
            if count:
                part = slice(start, start + count)
                inner = gated_activation(self._gate_ups[expert](gathered[part]), self._activation)
                results[part] = self._downs[expert](inner)
                start += count
        by_pair = torch.empty_like(results).index_copy_(0, order, results)
        shares = routing.weights.to(x.dtype).unsqueeze(1)  # [T, 1, top_k]
        h.unsqueeze(1).baddbmm_(shares, by_pair.view(num_tokens, top_k, -1))


def _route_for(device: torch.device, spec: MoESpec) -> Route:
    if device.type == "cuda":
        from quire.kernels.triton.moe_routing import softmax_top_k
    else:
        from quire.kernels.reference.moe import softmax_top_k
    return partial(softmax_top_k, top_k=spec.top_k, renormalise=spec.renormalise)


def _experts_for(device: torch.device, gate_up: Tensor, down: Tensor, spec: MoESpec) -> Experts:
    if device.type == "cuda":
        from quire.kernels.triton.moe import TritonExperts

        return TritonExperts(gate_up, down, spec.activation)
    return HostExperts(gate_up, down, spec.activation)
