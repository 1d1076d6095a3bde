"""A mixture of experts equals its formula, token by token, and shows how it routes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.reference.moe import Routing
from quire.layers.moe import MoE
from quire.layers.moe_spec import MoESpec, SharedExpertSpec, SoftmaxRouting
from quire.layers.spec import GatedMLPSpec
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


def test_biases_and_the_clamped_gate_of_gpt_oss() -> None:
    spec = replace(_spec(), activation="swiglu_oss", router_bias=True, expert_bias=True)
    moe, tensors = _loaded(spec)
    x = 6 * torch.randn(20, 6)  # some gates and ups are beyond the limit
    expected = torch.zeros_like(x)
    logits = x @ tensors["m.router.weight"].T + tensors["m.router.bias"]
    values, chosen = logits.topk(2)
    for token, (shares, experts) in enumerate(zip(values.softmax(1), chosen, strict=True)):
        for share, expert in zip(shares, experts.tolist(), strict=True):
            gate, up, down = (
                (tensors[f"m.experts.{n}.weight"][expert], tensors[f"m.experts.{n}.bias"][expert])
                for n in ("gate", "up", "down")
            )
            gated = (gate[0] @ x[token] + gate[1]).clamp(max=7)
            raised = (up[0] @ x[token] + up[1]).clamp(-7, 7) + 1
            inner = gated * torch.sigmoid(1.702 * gated) * raised
            expected[token] += share * (down[0] @ inner + down[1])
    h = torch.zeros_like(x)
    moe.add_to(x, h)
    torch.testing.assert_close(h, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("gated", [False, True])
def test_the_shared_expert_sees_every_token(gated: bool) -> None:
    mlp = GatedMLPSpec(hidden_size=6, inner_size=4, activation="gelu")
    alone, _ = _loaded(_spec())
    spec = replace(_spec(), shared=SharedExpertSpec(mlp=mlp, gated=gated))
    moe, tensors = _loaded(spec)
    x = torch.randn(7, 6)
    together, routed = torch.zeros(7, 6), torch.zeros(7, 6)
    moe.add_to(x, together)
    alone.load(MemoryReader(tensors), "m")
    alone.add_to(x, routed)
    gate, up, down = (tensors[f"m.shared.{n}.weight"] for n in ("gate", "up", "down"))
    expected = (F.gelu(x @ gate.T) * (x @ up.T)) @ down.T
    if gated:
        expected *= torch.sigmoid(x @ tensors["m.shared.shared_gate.weight"].T)
    torch.testing.assert_close(together - routed, expected, rtol=1e-4, atol=1e-5)
