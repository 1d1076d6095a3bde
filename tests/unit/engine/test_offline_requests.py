"""Which parameters of neighbours are the same at sight."""

from __future__ import annotations

from typing import Any

import pytest

from quire.engine.offline_requests import _ask_the_same
from quire.sampling_params import BeamSearchParams, SamplingParams


def schema(*names: str) -> dict[str, Any]:
    return {"json": {"type": "object", "properties": {name: {} for name in names}}}


def processor(*_: Any) -> Any: ...


class Special(SamplingParams):
    pass


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (SamplingParams(), SamplingParams(), True),
        (SamplingParams(max_tokens=5, seed=1), SamplingParams(max_tokens=5, seed=1), True),
        (SamplingParams(max_tokens=5), SamplingParams(max_tokens=6), False),
        (SamplingParams(seed=1), SamplingParams(), False),
        (SamplingParams(stop=["a"]), SamplingParams(stop=["b"]), False),
        (SamplingParams(stop_token_ids=[1]), SamplingParams(), False),
        (SamplingParams(logit_bias={1: 2.0}), SamplingParams(logit_bias={1: 3.0}), False),
        (
            SamplingParams(structured_outputs=schema("a", "b")),  # type: ignore[arg-type]
            SamplingParams(structured_outputs=schema("b", "a")),  # type: ignore[arg-type]
            False,
        ),
        (
            SamplingParams(logits_processors=[processor]),
            SamplingParams(logits_processors=[processor]),
            False,
        ),
        (Special(), Special(), False),
        (BeamSearchParams(beam_width=2, max_tokens=5), SamplingParams(), False),
    ],
)
def test_what_is_not_seen_to_be_the_same_is_not(one: Any, other: Any, same: bool) -> None:
    assert _ask_the_same(one, other) is same
    assert _ask_the_same(other, one) is same
