"""A mixture of experts equals its formula, token by token, and shows how it routes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.reference.moe import Routing
from quire.layers.moe import MoE
from quire.layers.moe_spec import MoESpec, SoftmaxRouting
from tests.unit.layers.readers import MemoryReader


def _spec(*, renormalise: bool = True) -> MoESpec:
    return MoESpec(
        hidden_size=6,
        inner_size=10,
        num_experts=5,
        top_k=2,
        activation="silu",
        routing=SoftmaxRouting(renormalise=renormalise),
    )


def _loaded(spec: MoESpec) -> tuple[MoE, dict[str, Tensor]]:
    reader = MemoryReader.random(spec.parameters(), "m")
    moe = MoE(spec)
    moe.load(reader, "m")
    return moe, reader.tensors


def _definition(spec: MoESpec, tensors: dict[str, Tensor], token: Tensor) -> Tensor:
    """One token through its experts."""
    probabilities = (tensors["m.router.weight"] @ token).softmax(0)
    chosen = probabilities.argsort(descending=True)[: spec.top_k]
    total = probabilities[chosen].sum() if spec.routing == SoftmaxRouting(renormalise=True) else 1.0
    result = torch.zeros_like(token)
    for expert in chosen.tolist():
        gate, up, down = (tensors[f"m.experts.{n}.weight"][expert] for n in ("gate", "up", "down"))
        result += probabilities[expert] / total * (down @ (F.silu(gate @ token) * (up @ token)))
    return result


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 2, 30])
def test_each_token_gets_the_sum_of_its_experts_on_top(renormalise: bool, num_tokens: int) -> None:
    spec = _spec(renormalise=renormalise)
    moe, tensors = _loaded(spec)
    x, h = torch.randn(num_tokens, 6), torch.randn(num_tokens, 6)
    expected = h + torch.stack([_definition(spec, tensors, token) for token in x])
    moe.add_to(x, h)
    torch.testing.assert_close(h, expected, rtol=1e-4, atol=1e-4)


def test_a_wrapped_route_sees_the_experts_of_every_call() -> None:
    moe, _ = _loaded(_spec())
    route, seen = moe.route, torch.zeros(5, dtype=torch.int64)

    def counting(logits: Tensor) -> Routing:
        routing = route(logits)
        seen.scatter_add_(0, routing.experts.flatten().long(), torch.ones(8, dtype=torch.int64))
        return routing

    moe.route = counting
    moe.add_to(torch.randn(4, 6), torch.zeros(4, 6))
    assert seen.sum() == 4 * 2
