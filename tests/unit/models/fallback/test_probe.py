"""Masks that transformers describes are read exactly, and refused where a cache cannot follow."""

from __future__ import annotations

import json
from collections.abc import Callable
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


def test_a_mask_may_be_sliced_to_all_of_it() -> None:
    mask = WantedMask(causal_mask_function)
    assert mask[:, :, 0:, :] is mask
    with pytest.raises(UnsupportedModelError, match="attends with part of its mask"):
        mask[:, :, -1:, :]


def _source(architecture: str, config: PreTrainedConfig) -> ModelSource:
    return ModelSource(
        path=Path("/nowhere"),
        hf_config=json.loads(config.to_json_string()),
        architecture=architecture,
        dtype="float32",
        impl="transformers",
    )


def test_a_head_that_calls_a_part_of_the_backbone() -> None:
    config = OPTConfig(
        hidden_size=12, ffn_dim=8, num_attention_heads=2, num_hidden_layers=3, vocab_size=31
    )
    probed = probe(_source("OPTForCausalLM", config))
    assert len(probed.calls) == 3
    assert probed.facts.vocab_size == 31


@pytest.mark.parametrize(
    ("architecture", "config", "reason"),
    [
        ("GPTJForCausalLM", GPTJConfig(n_embd=128, n_head=2, n_layer=1), "attention classes of it"),
        ("T5ForConditionalGeneration", T5Config(), "is an encoder-decoder"),
    ],
)
def test_models_that_cannot_be_watched_are_refused(
    architecture: str, config: PreTrainedConfig, reason: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=f"{architecture}.*{reason}"):
        probe(_source(architecture, config))
