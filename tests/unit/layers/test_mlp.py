"""MLPs and mixtures equal their formulas, token by token."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.activations import ACT2FN

from quire.kernels.reference.activation import ACTIVATIONS
from quire.layers.mlp import GatedMLP, PlainMLP
from quire.layers.moe import MoE
from quire.layers.spec import GatedMLPSpec, MoESpec, PlainMLPSpec
from quire.models.common import ACTIVATION_NAMES
from tests.unit.layers.readers import MemoryReader


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activation_is_what_transformers_calls_by_that_name(name: str) -> None:
    x = torch.linspace(-4, 4, 100)
    expected = ACT2FN[name](x.clone())
    torch.testing.assert_close(ACTIVATIONS[ACTIVATION_NAMES[name]](x.clone()), expected)


def test_gated_mlp() -> None:
    spec = GatedMLPSpec(hidden_size=6, inner_size=10, activation="gelu_tanh", bias=True)
    reader = MemoryReader.random(spec.parameters(), "m")
    mlp = GatedMLP(spec)
    mlp.load(reader, "m")
    x = torch.randn(4, 6)
    t = reader.tensors
    gate = F.gelu(F.linear(x, t["m.gate.weight"], t["m.gate.bias"]), approximate="tanh")
    inner = gate * F.linear(x, t["m.up.weight"], t["m.up.bias"])
    torch.testing.assert_close(mlp(x), F.linear(inner, t["m.down.weight"], t["m.down.bias"]))


def test_plain_mlp_without_bias() -> None:
    spec = PlainMLPSpec(hidden_size=6, inner_size=10, activation="relu2", bias=False)
    reader = MemoryReader.random(spec.parameters(), "m")
    mlp = PlainMLP(spec)
    mlp.load(reader, "m")
    x = torch.randn(4, 6)
    inner = F.relu(x @ reader.tensors["m.up.weight"].T) ** 2
    torch.testing.assert_close(mlp(x), inner @ reader.tensors["m.down.weight"].T)


def _mixture(spec: MoESpec, tensors: dict[str, Tensor], token: Tensor) -> Tensor:
    """One token through its experts, by the definition."""
    probabilities = (tensors["m.router.weight"] @ token).softmax(0)
    chosen = probabilities.argsort(descending=True)[: spec.top_k]
    total = probabilities[chosen].sum() if spec.renormalise else 1.0
    result = torch.zeros_like(token)
    for expert in chosen.tolist():
        gate, up, down = (tensors[f"m.experts.{n}.weight"][expert] for n in ("gate", "up", "down"))
        result += probabilities[expert] / total * (down @ (F.silu(gate @ token) * (up @ token)))
    return result


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 2, 30])
def test_mixture_of_experts(renormalise: bool, num_tokens: int) -> None:
    spec = MoESpec(
        hidden_size=6,
        inner_size=10,
        num_experts=5,
        top_k=2,
        activation="silu",
        renormalise=renormalise,
    )
    reader = MemoryReader.random(spec.parameters(), "m")
    moe = MoE(spec)
    moe.load(reader, "m")
    x = torch.randn(num_tokens, 6)
    expected = torch.stack([_mixture(spec, reader.tensors, token) for token in x])
    torch.testing.assert_close(moe(x), expected, rtol=1e-4, atol=1e-4)
