"""MLPs equal their formulas."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers.activations import ACT2FN

from quire.kernels.reference.activation import ACTIVATIONS
from quire.layers.mlp import GatedMLP, PlainMLP
from quire.layers.norm import Norm, build_norm
from quire.layers.spec import GatedMLPSpec, PlainMLPSpec, RMSNormSpec
from quire.models.common import ACTIVATION_NAMES
from tests.unit.layers.readers import MemoryReader


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activation_is_what_transformers_calls_by_that_name(name: str) -> None:
    x = torch.linspace(-4, 4, 100)
    expected = ACT2FN[name](x.clone())
    torch.testing.assert_close(ACTIVATIONS[ACTIVATION_NAMES[name]](x.clone()), expected)


def _norm(size: int) -> Norm:
    spec = RMSNormSpec(size=size, eps=1e-6)
    norm = build_norm(spec)
    norm.load(MemoryReader.random(spec.parameters(), "n"), "n")
    return norm


def test_gated_mlp_adds_to_what_it_norms() -> None:
    spec = GatedMLPSpec(hidden_size=6, inner_size=10, activation="gelu_tanh", bias=True)
    reader = MemoryReader.random(spec.parameters(), "m")
    mlp, norm = GatedMLP(spec), _norm(6)
    mlp.load(reader, "m", norm)
    h = torch.randn(4, 6)
    x, t = norm(h), reader.tensors
    gate = F.gelu(F.linear(x, t["m.gate.weight"], t["m.gate.bias"]), approximate="tanh")
    inner = gate * F.linear(x, t["m.up.weight"], t["m.up.bias"])
    wanted = h + F.linear(inner, t["m.down.weight"], t["m.down.bias"])
    mlp.add_to(h)
    torch.testing.assert_close(h, wanted)


def test_plain_mlp_without_bias() -> None:
    spec = PlainMLPSpec(hidden_size=6, inner_size=10, activation="relu2", bias=False)
    reader = MemoryReader.random(spec.parameters(), "m")
    mlp, norm = PlainMLP(spec), _norm(6)
    mlp.load(reader, "m", norm)
    h = torch.randn(4, 6)
    inner = F.relu(norm(h) @ reader.tensors["m.up.weight"].T) ** 2
    wanted = h + inner @ reader.tensors["m.down.weight"].T
    mlp.add_to(h)
    torch.testing.assert_close(h, wanted)
