"""Mixture of experts: a softmax router sends each token through a few gated MLPs."""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.reference.activation import ACTIVATIONS, gated_activation
from quire.layers.linear import Linear, Product, fastest_product
from quire.layers.spec import MoESpec
from quire.weights.reader import TensorReader


class MoE:
    """Tokens sorted by expert, one product per expert that has any, results summed in place."""

    def __init__(self, spec: MoESpec) -> None:
        self._spec = spec
        self.router = Linear(spec.hidden_size, {"router": spec.num_experts}, bias=False)
        self._activation = ACTIVATIONS[spec.activation]
        self._route = _renormalised if spec.renormalise else _as_they_are
        self.gate_ups: list[Product] = []
        self.downs: list[Product] = []

    def load(self, reader: TensorReader, prefix: str) -> None:
        self.router.load(reader, prefix)
        shapes = self._spec.parameters()
        gate, up, down = (
            reader.read(f"{prefix}.{name}", shapes[name])
            for name in ("experts.gate.weight", "experts.up.weight", "experts.down.weight")
        )
        gate_up = torch.cat((gate, up), dim=1)
        self.gate_ups = [fastest_product(weight) for weight in gate_up.unbind(0)]
        self.downs = [fastest_product(weight) for weight in down.unbind(0)]

    def __call__(self, x: Tensor) -> Tensor:
        spec = self._spec
        probabilities = self.router(x).softmax(dim=-1, dtype=torch.float32)
        weights, experts = probabilities.topk(spec.top_k, dim=-1)  # [T, top_k]
        weights = self._route(weights).to(x.dtype)
        order = experts.flatten().argsort(stable=True)
        tokens = order // spec.top_k
        counts = torch.zeros(spec.num_experts, dtype=torch.int64, device=x.device)
        counts.scatter_add_(0, experts.flatten(), torch.ones_like(order))
        gathered = x.index_select(0, tokens)
        results = torch.empty_like(gathered)
        start = 0
        # sync: the CPU's grouped product loops over the experts on the host
        for expert, count in enumerate(counts.tolist()):
            if count:
                part = slice(start, start + count)
                inner = gated_activation(self.gate_ups[expert](gathered[part]), self._activation)
                results[part] = self.downs[expert](inner)
                start += count
        results *= weights.flatten().index_select(0, order).unsqueeze(-1)
        return torch.zeros_like(x).index_add_(0, tokens, results)


def _renormalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=-1, keepdim=True)


def _as_they_are(weights: Tensor) -> Tensor:
    return weights
