"""Gemma 2: a window that is said twice."""

from __future__ import annotations

from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.models.loading import plan_of
from quire.models.spec import DecoderSpec

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}


def _spec(**keys: Any) -> DecoderSpec:
    return plan_of({**_SIZES, **keys}, "Gemma2ForCausalLM").spec


def test_the_second_name_of_the_window_says_nothing_new() -> None:
    """transformers does not read it."""
    assert _spec(sliding_window=8, sliding_window_size=8) == _spec(sliding_window=8)
    assert _spec(sliding_window_size=4096) == _spec()


@pytest.mark.parametrize("keys", [{"sliding_window": 8}, {"sliding_window": None}, {}])
def test_another_window_under_the_second_name_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModelError, match="'sliding_window_size' = 9 is not supported"):
        _spec(**keys, sliding_window_size=9)
