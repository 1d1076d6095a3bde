"""A backend is chosen by name; what it cannot do is said."""

from __future__ import annotations

import pytest
import torch

from quire.attention.backend import AttentionProblem
from quire.attention.selection import select_backend
from quire.attention.torch_backend import TorchAttention


def _problem(num_kv_heads: int) -> AttentionProblem:
    return AttentionProblem(
        num_heads=4,
        num_kv_heads=num_kv_heads,
        head_dim=8,
        scale=1.0,
        dtype=torch.float32,
        device="cpu",
    )


def test_named_backend_is_found() -> None:
    assert select_backend("torch", [_problem(2)]) is TorchAttention


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'banana' is not known; choose one of: torch"):
        select_backend("banana", [])


def test_refusal_gives_the_reason_once() -> None:
    with pytest.raises(ValueError, match="4 heads do not share 3 KV heads evenly") as error:
        select_backend("torch", [_problem(2), _problem(3), _problem(3)])
    assert str(error.value).count("evenly") == 1
