"""Norms equal their formulas."""

from __future__ import annotations

import pytest
import torch

from quire.layers.norm import build_norm
from quire.layers.spec import HeadNormSpec, HeadsLayerNormSpec, LayerNormSpec, RMSNormSpec
from tests.unit.layers.readers import MemoryReader


def _x(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(5, 12, generator=torch.Generator().manual_seed(1)).to(dtype)


def _load(spec: HeadNormSpec | None, dtype: torch.dtype = torch.float32):  # type: ignore[no-untyped-def]
    reader = MemoryReader.random(spec.parameters() if spec else {}, "n", dtype=dtype)
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_layer_norm_with_an_offset_weight_is_not_rounded_twice(
    dtype: torch.dtype, bias: bool
) -> None:
    norm, tensors = _load(LayerNormSpec(size=12, eps=1e-3, bias=bias, weight_offset=1.0), dtype)
    x = _x(dtype)
    weight = 1.0 + tensors["n.weight"].double()
    shift = tensors["n.bias"].double() if bias else None
    expected = torch.nn.functional.layer_norm(x.double(), (12,), weight, shift, 1e-3)
    assert norm(x).dtype == dtype
    torch.testing.assert_close(norm(x), expected.to(dtype))


def test_layer_norm_of_heads_has_a_weight_for_every_head() -> None:
    norm, tensors = _load(HeadsLayerNormSpec(num_heads=5, size=12, eps=1e-3), torch.bfloat16)
    x = torch.randn(3, 5, 12, generator=torch.Generator().manual_seed(1)).bfloat16()
    centred = x.double() - x.double().mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    expected = centred / (variance + 1e-3).sqrt() * tensors["n.weight"].double()
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), expected.bfloat16())


def test_no_norm_changes_nothing() -> None:
    norm, _ = _load(None)
    x = _x()
    assert torch.equal(norm(x), x)
