"""The description of the API says what `sampling_limits.py` and the guard do."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quire.sampling_limits import RULES
from quire.server.app import build_app
from quire.server.args import ServerArgs
from quire.server.openapi import RANGES
from quire.server.state import ServerState


def description(**args: Any) -> dict[str, Any]:
    return build_app(ServerState(args=ServerArgs(**args))).openapi()


@pytest.mark.parametrize("name", sorted(RANGES.keys() & RULES.keys()))
def test_ranges_are_those_that_are_checked(name: str) -> None:
    accepts, limits = RULES[name].accepts, dict(RANGES[name])
    if "exclusiveMinimum" in limits:
        low = limits.pop("exclusiveMinimum")
        assert not accepts(low) and accepts(math.nextafter(low, 1))
    steps = {"minimum": -1, "maximum": 1}
    for end, limit in limits.items():
        beyond = limit + steps[end] if isinstance(limit, int) else limit * 2.0 ** steps[end]
        assert accepts(limit) and not accepts(beyond)


def test_every_other_range_of_a_number_has_no_end() -> None:
    """A rule with a new end must be told of, or clients would not know."""
    for name in RULES.keys() - RANGES.keys():
        assert not RULES[name].accepts(0.5), f"{name} is a real number without a range"


def test_fields_say_their_limits() -> None:
    fields = description()["components"]["schemas"]["CompletionRequest"]["properties"]
    assert fields["temperature"]["description"] == "a number in [0, 2]; use 0 for greedy"
    assert {"type": "number", "minimum": 0, "maximum": 2} in fields["temperature"]["anyOf"]


def test_unknown_fields_are_described_as_they_are_judged() -> None:
    strict = description()["components"]["schemas"]["ChatCompletionRequest"]
    assert strict["additionalProperties"] is False and "metadata" in strict["properties"]
    lax = description(strict_fields="warn")["components"]["schemas"]["ChatCompletionRequest"]
    assert lax["additionalProperties"] is True


def test_no_error_has_the_form_of_the_framework() -> None:
    text = str(description())
    assert "'422'" not in text and "HTTPValidationError" not in text


def test_keys_are_described_when_there_are_any() -> None:
    without, with_keys = description(), description(api_key=("secret",))
    assert "securitySchemes" not in without["components"]
    assert with_keys["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}
    paths = with_keys["paths"]
    assert paths["/v1/models"]["get"]["security"] == [{"bearer": []}, {"x-api-key": []}]
    assert "401" in paths["/v1/models"]["get"]["responses"]
    assert "security" not in paths["/health"]["get"]
    assert "secret" not in str(with_keys)
