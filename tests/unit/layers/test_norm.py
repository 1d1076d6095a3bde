"""Norms equal their formulas."""

from __future__ import annotations

import pytest
import torch

from quire.layers.norm import build_norm
from quire.layers.spec import LayerNormSpec, NormSpec, RMSNormSpec
from tests.unit.layers.readers import MemoryReader


def _x(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(1)).to(dtype)


def _load(spec: NormSpec, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    reader = MemoryReader.random(spec.parameters(), "n", dtype=dtype)
    norm = build_norm(spec)
    norm.load(reader, "n")
    return norm, reader.tensors


@pytest.mark.parametrize("offset", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rms_norm(offset: float, dtype: torch.dtype) -> None:
    norm, tensors = _load(RMSNormSpec(size=12, eps=1e-3, weight_offset=offset), dtype)
    x = _x(dtype)
    rms = (x.double() ** 2).mean(-1, keepdim=True).add(1e-3).sqrt()
    expected = (x.double() / rms * (offset + tensors["n.weight"].double())).to(dtype)
    torch.testing.assert_close(norm(x), expected)


@pytest.mark.parametrize(("weight", "bias"), [(True, True), (True, False), (False, False)])
def test_layer_norm(weight: bool, bias: bool) -> None:
    norm, tensors = _load(LayerNormSpec(size=12, eps=1e-3, weight=weight, bias=bias))
    x = _x()
    variance = x.var(-1, keepdim=True, correction=0)
    expected = (x - x.mean(-1, keepdim=True)) / (variance + 1e-3).sqrt()
    expected = expected * tensors.get("n.weight", 1.0) + tensors.get("n.bias", 0.0)
    assert set(tensors) == {f"n.{name}" for name, on in (("weight", weight), ("bias", bias)) if on}
    torch.testing.assert_close(norm(x), expected)
