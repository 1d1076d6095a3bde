"""Whether a machine can have the CUDA kernels, and every reason against a weight or heads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quire.kernels.cuda import availability, decode_attention
from quire.kernels.cuda.availability import why_not, why_not_rows
from quire.kernels.selection import attend_rows
from quire.kernels.shapes import HeadsShape

SHAPE = HeadsShape(
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    rotary_dim=128,
    is_interleaved=False,
    eps=(1e-6, 1e-6),
)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks nothing."""
    monkeypatch.setattr(availability, "why_not_here", list)


def test_a_machine_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.zeros(64, 64, dtype=torch.bfloat16)
    here = availability.why_not_here.__wrapped__
    monkeypatch.setattr(availability, "why_not_here", here)  # not what it said once
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_not(weight, None, gated=False) == ["the GPU is no Hopper"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    assert why_not(weight, None, gated=False) == ["the GPU is no Hopper"]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert why_not(weight, None, gated=False) == []
    monkeypatch.setattr(availability, "find_spec", lambda name: None)
    assert why_not(weight, None, gated=False) == ["cuda-bindings is not installed"]


def test_reasons_against_a_weight(hopper: None) -> None:
    good = torch.zeros(64, 64, dtype=torch.bfloat16)
    assert why_not(good, good[0], gated=True) == []
    assert "float32" in str(why_not(good.float(), None, gated=False))
    assert "63 values" in str(why_not(good[:, :63].contiguous(), None, gated=False))
    assert "60 rows" in str(why_not(good[:60], None, gated=False))
    assert "contiguous" in str(why_not(good.T, None, gated=False))
    assert "bias" in str(why_not(good, good[0].float(), gated=False))


@pytest.mark.parametrize("head_dim", [64, 128])
@pytest.mark.parametrize("num_kv_heads", [4, 8, 32])
@pytest.mark.parametrize("block_size", [16, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_heads_of_most_models_have_nothing_against_them(
    hopper: None, head_dim: int, num_kv_heads: int, block_size: int, dtype: torch.dtype
) -> None:
    shape = replace(SHAPE, head_dim=head_dim, rotary_dim=head_dim, num_kv_heads=num_kv_heads)
    assert why_not_rows(shape, dtype, block_size) == []


@pytest.mark.parametrize(
    ("changed", "dtype", "block_size", "reason"),
    [
        ({}, torch.float32, 16, "keys are torch.float32"),
        ({"head_dim": 96, "rotary_dim": 96}, torch.bfloat16, 16, "heads have 96 values"),
        ({"rotary_dim": 64}, torch.bfloat16, 16, "64 of 128 values of a head turn"),
        ({"is_interleaved": True}, torch.bfloat16, 16, "neighbouring values turn together"),
        ({"num_heads": 72}, torch.bfloat16, 16, "72 query heads share 8 KV heads"),
        ({}, torch.bfloat16, 24, "blocks of 24 tokens"),
    ],
)
def test_each_reason_against_heads(
    hopper: None, changed: dict[str, int], dtype: torch.dtype, block_size: int, reason: str
) -> None:
    assert why_not_rows(replace(SHAPE, **changed), dtype, block_size) == [reason]


def test_all_reasons_are_told_and_a_machines_are_not_added_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = ["the GPU is no Hopper"]
    monkeypatch.setattr(availability, "why_not_here", lambda: here)
    for _ in range(2):
        assert why_not_rows(SHAPE, torch.float32, 24) == [
            "the GPU is no Hopper",
            "keys are torch.float32",
            "blocks of 24 tokens",
        ]


def test_layers_get_the_kernel_where_nothing_is_against_it(
    hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"scale": 0.1, "block_size": 16, "dtype": torch.bfloat16}
    cuda, norms = torch.device("cuda"), (torch.ones(128), torch.ones(128))
    monkeypatch.setattr(decode_attention, "DecodeAttention", lambda *args, **kw: (*args, kw))
    made = attend_rows(SHAPE, norms, device=cuda, **given)
    assert made == (SHAPE, norms, {"device": cuda, **given})
    assert attend_rows(SHAPE, norms, device=torch.device("cpu"), **given) is None
    assert attend_rows(SHAPE, norms, device=cuda, **{**given, "block_size": 24}) is None
