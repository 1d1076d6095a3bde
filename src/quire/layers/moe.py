"""Mixture of experts: a router sends each token through a few gated MLPs.

Routing is a function (`routing.Route`), and computing the experts an object (`Experts`); both are
chosen when the weights are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from quire.kernels.reference.moe import Routing
from quire.kernels.selection import kernels_for
from quire.layers.linear import Product, fastest_product
from quire.layers.moe_spec import MoESpec
from quire.layers.routing import Route, build_router, load_route
from quire.layers.shared_expert import SharedExpert, build_shared_expert
from quire.weights.reader import TensorReader


class Experts(Protocol):
    """The gated MLPs of one layer."""

    def add_to(self, x: Tensor, routing: Routing, h: Tensor) -> None:
        """h [T, H] += the weighted sum of what each token's experts make of x [T, H]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpertWeights:
    """The weights of all experts of a layer; rows of gate come before those of up."""

    gate_up: Tensor  # [experts, 2 I, H]
    down: Tensor  # [experts, H, I]
    gate_up_bias: Tensor | None = None  # [experts, 2 I]
    down_bias: Tensor | None = None  # [experts, H]


class MoE:
    """One mixture layer. To observe routings, replace ``route`` before a graph is captured: it is
    looked up at every call."""

    def __init__(self, spec: MoESpec) -> None:
        self._spec = spec
        self.router = build_router(spec)
        self.route: Route
        self.experts: Experts
        # The expert that every token goes through: none or one.
        self._shared: tuple[SharedExpert, ...] = (
            () if spec.shared is None else (build_shared_expert(spec.shared),)
        )

    def load(self, reader: TensorReader, prefix: str) -> None:
        self.router.load(reader, prefix)
        self.route = load_route(self._spec, reader, prefix)
        weights = _read_experts(self._spec, reader, prefix)
        self.experts = _experts_for(reader.device, weights, self._spec)
        for shared in self._shared:
            shared.load(reader, f"{prefix}.shared")

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h [T, H] += this layer's output for x [T, H]."""
        self.experts.add_to(x, self.route(self.router(x)), h)
        for shared in self._shared:
            shared.add_to(x, h)


class HostExperts:
    """Sorts the pairs of tokens and experts by expert, then computes one expert after another."""

    def __init__(self, weights: ExpertWeights, gating: str) -> None:
        self._gate_ups = _products(weights.gate_up, weights.gate_up_bias)
        self._downs = _products(weights.down, weights.down_bias)
        self._gate = kernels_for(weights.down.device).gated_activation(gating)

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
                inner = self._gate(self._gate_ups[expert](gathered[part]))
                results[part] = self._downs[expert](inner)
                start += count
        by_pair = torch.empty_like(results).index_copy_(0, order, results)
        shares = routing.weights.to(x.dtype).unsqueeze(1)  # [T, 1, top_k]
        h.unsqueeze(1).baddbmm_(shares, by_pair.view(num_tokens, top_k, -1))


def _products(weights: Tensor, biases: Tensor | None) -> list[Product]:
    """The product of each expert."""
    each = [None] * len(weights) if biases is None else biases.unbind(0)
    return [fastest_product(*one) for one in zip(weights.unbind(0), each, strict=True)]


def _read_experts(spec: MoESpec, reader: TensorReader, prefix: str) -> ExpertWeights:
    shapes = spec.parameters()

    def read(name: str) -> Tensor:
        return reader.read(f"{prefix}.{name}", shapes[name])

    def gate_above_up(kind: str) -> Tensor:
        """Stack the tensors of gate and up; at no time are there two copies of both."""
        gate = read(f"experts.gate.{kind}")
        num_experts, inner, *rest = gate.shape
        both = gate.new_empty(num_experts, 2 * inner, *rest)
        both[:, :inner] = gate
        del gate
        both[:, inner:] = read(f"experts.up.{kind}")
        return both

    return ExpertWeights(
        gate_up=gate_above_up("weight"),
        down=read("experts.down.weight"),
        gate_up_bias=gate_above_up("bias") if spec.expert_bias else None,
        down_bias=read("experts.down.bias") if spec.expert_bias else None,
    )


def _experts_for(device: torch.device, weights: ExpertWeights, spec: MoESpec) -> Experts:
    if device.type == "cuda":
        from quire.kernels.triton.moe import TritonExperts

        return TritonExperts(
            weights.gate_up,
            weights.down,
            spec.activation,
            gate_up_bias=weights.gate_up_bias,
            down_bias=weights.down_bias,
        )
    return HostExperts(weights, spec.activation)
