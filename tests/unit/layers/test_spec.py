"""Specs refuse numbers that would compute nothing sensible, with the value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from quire.errors import UnsupportedModelError
from quire.layers.spec import AttentionSpec, HeadSpec


def _attention(**options: Any) -> AttentionSpec:
    defaults = {"hidden_size": 8, "num_heads": 2, "num_kv_heads": 1, "head_dim": 4, "scale": 0.5}
    return AttentionSpec(**{"positions": None, **defaults, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"window": 0},
            r"a window of tokens \(sliding_window\) of 0; .* above 0, or null for none",
        ),
        ({"window": -1}, r"\(sliding_window\) of -1; it must be"),
        ({"soft_cap": 0.0}, r"a soft cap of scores of 0\.0; it must be a number above 0"),
        ({"soft_cap": -3.0}, r"a soft cap of scores of -3\.0"),
        ({"scale": 0.0}, r"a scale of scores of 0\.0; it must be a number above 0"),
        ({"scale": -0.5}, r"a scale of scores of -0\.5"),
        (
            {"scale": (-4) ** -0.5},
            r"a scale of scores of \(.*-0\.5j\); it must be a number above 0",
        ),
        ({"scale": float("nan")}, r"a scale of scores of nan"),
    ],
)
def test_attention_that_could_see_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        _attention(**options)


@pytest.mark.parametrize("cap", [0.0, -30.0])
def test_a_cap_that_no_logit_can_have_is_refused(cap: float) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"a soft cap of logits of {cap}; it must be"):
        HeadSpec(vocab_size=9, hidden_size=8, tied=True, soft_cap=cap)


def test_a_window_of_one_token_and_no_cap_are_fine() -> None:
    assert _attention(window=1, soft_cap=None).window == 1
