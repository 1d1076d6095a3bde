"""Masks that transformers describes are read exactly, and refused where a cache cannot follow."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor
from transformers import GPTJConfig, OPTConfig, PreTrainedConfig, T5Config
from transformers.masking_utils import (
    bidirectional_mask_function,
    causal_mask_function,
    sliding_window_causal_mask_function,
)

from quire.errors import UnsupportedModelError
from quire.models.fallback.interface import WantedMask
from quire.models.fallback.probe import probe, window_of
from quire.models.source import ModelSource

Predicate = Callable[[Tensor, Tensor, Tensor, Tensor], Any]


@pytest.mark.parametrize("longest", [64, 1000])
def test_a_causal_mask_has_no_window(longest: int) -> None:
    assert window_of(WantedMask(causal_mask_function), longest) is None


@pytest.mark.parametrize("window", [1, 2, 7, 63])
def test_a_window_counts_the_token_itself(window: int) -> None:
    mask = WantedMask(sliding_window_causal_mask_function(window))
    assert window_of(mask, 64) == window


def test_a_window_that_no_text_fills_is_none() -> None:
    assert window_of(WantedMask(sliding_window_causal_mask_function(64)), 64) is None


@pytest.mark.parametrize(
    ("sees", "reason"),
    [
        (bidirectional_mask_function, "not causal"),
        (lambda batch, head, query, key: (key <= query) & (key != 5), "has gaps"),
        (lambda batch, head, query, key: key < query, "has gaps"),
        (lambda batch, head, query, key: (key <= query) & (key // 8 == query // 8), "no.* window"),
    ],
)
def test_other_masks_are_refused(sees: Predicate, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        window_of(WantedMask(sees), 64)
