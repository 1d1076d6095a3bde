"""Numbers that the compiler reads as they are."""

from __future__ import annotations

import json
import math
import random
from decimal import Decimal

import pytest

from quire.structured_outputs.exact_numbers import dumps, is_exact
from tests.unit.structured_outputs.grammars import compiled, follows

# Of what the compiler reads next to it, digit by digit, and in no other way.
NEVER_EXACT = 0.9572123232207039


def test_numbers_of_few_digits_stay_as_they_are_written() -> None:
    usual = [0.0, 0.1, -1.5, 1e-20, 1e100, 5e-324, math.pi]
    assert [dumps(value) for value in usual] == [repr(value) for value in usual]


def test_constants_of_many_digits_are_written_as_they_are() -> None:
    chance = random.Random(1)
    values = [chance.uniform(-1, 1) * 10.0 ** chance.choice([-9, 0, 3]) for _ in range(100)]
    exact = [value for value in values if is_exact(value)]
    assert len(exact) > 95
    assert len([value for value in exact if dumps(value) != repr(value)]) > 10
    for value in exact:
        assert follows(compiled(json={"const": value}), format(Decimal(repr(value)), "f")), value


def test_what_cannot_be_given_to_the_compiler_is_refused() -> None:
    assert not is_exact(NEVER_EXACT)
    with pytest.raises(ValueError, match=r"0\.9572123232207039 is not read exactly"):
        compiled(json={"properties": {"a": {"enum": [1, NEVER_EXACT]}}})
    assert follows(compiled(json={"type": "number", "minimum": NEVER_EXACT}), "0.96")


def test_everything_else_is_plain_json() -> None:
    value = {"a": [1, True, None, '\u00e9"', {"b": []}, 0.5], "é": {}}
    assert dumps(value) == json.dumps(value)
