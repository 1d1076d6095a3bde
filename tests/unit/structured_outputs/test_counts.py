"""Numbers of properties: what is spelled out, left to compilers, and refused."""

from __future__ import annotations

from typing import Any

import pytest

from quire.structured_outputs.counts import MAX_CHOICES, count_properties

CLOSED = {"type": "object", "additionalProperties": False}
ABC: dict[str, Any] = {**CLOSED, "properties": {"a": {}, "b": {}, "c": {}}}
OPEN = {"type": "object", "additionalProperties": {}}


def choices(schema: dict[str, Any]) -> list[tuple[str, str]]:
    """The names that each choice requires, and all that it has."""
    found = count_properties(schema, "#")
    assert not found.keys() & {"minProperties", "maxProperties", "properties"}
    return [("".join(one["required"]), "".join(one["properties"])) for one in found["anyOf"]]


def test_choices_have_no_object_in_common() -> None:
    assert choices({**ABC, "minProperties": 2}) == [("ab", "abc"), ("ac", "ac"), ("bc", "bc")]
    assert choices({**ABC, "maxProperties": 2}) == [
        ("", ""), ("a", "a"), ("b", "b"), ("c", "c"), ("ab", "ab"), ("ac", "ac"), ("bc", "bc"),
    ]  # fmt: skip
    both = {**ABC, "properties": {**ABC["properties"], "d": {}}, "required": ["c"]}
    assert choices({**both, "minProperties": 3, "maxProperties": 3}) == [
        ("cab", "abc"), ("cad", "acd"), ("cbd", "bcd"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        ({**ABC, "minProperties": 0, "maxProperties": 3}, ABC),
        ({**ABC, "minProperties": 1, "maxProperties": 9}, {**ABC, "minProperties": 1}),
        ({**ABC, "maxProperties": 1}, {**ABC, "minProperties": 0, "maxProperties": 1}),
        ({**ABC, "minProperties": 4}, {**ABC, "minProperties": 4, "required": ["a", "b", "c"]}),
        ({**OPEN, "minProperties": 1}, {**OPEN, "minProperties": 1}),
        ({**OPEN, "minProperties": 3, "required": ["a", "b"]},
         {**OPEN, "minProperties": 3, "required": ["a", "b"]}),
        ({**ABC, "type": ["object", "null"], "minProperties": 2},
         {**ABC, "type": ["object", "null"], "minProperties": 2}),
    ],
)  # fmt: skip
def test_what_a_compiler_can_count_is_left_to_it(schema: Any, wanted: Any) -> None:
    assert count_properties(schema, "#") == wanted


def test_what_else_there_is_to_choose_stays() -> None:
    found = count_properties({**ABC, "minProperties": 2, "anyOf": [{}], "allOf": [True]}, "#")
    assert found["anyOf"] == [{}] and found["allOf"][0] is True
    assert len(found["allOf"][1]["anyOf"]) == 3


@pytest.mark.parametrize(
    "schema",
    [
        {**OPEN, "minProperties": 2},
        {"minProperties": 2},
        {**OPEN, "minProperties": 3, "required": ["a", "a"]},
        {**CLOSED, "patternProperties": {"^[ab]$": {}}, "minProperties": 3},
    ],
)
def test_more_than_one_property_without_a_name_is_refused(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"'minProperties' at #/x/minProperties cannot .* twice"):
        count_properties(schema, "#/x")


def test_more_choices_than_can_be_spelled_out_are_refused() -> None:
    many = {**CLOSED, "properties": dict.fromkeys(map(str, range(60)), True), "minProperties": 2}
    with pytest.raises(ValueError, match=rf"at #/x leave 1770 choices .* are {MAX_CHOICES}, and"):
        count_properties(many, "#/x")
    long = {**ABC, "properties": {name: {"const": "x" * 90_000} for name in "abc"}}
    with pytest.raises(ValueError, match="leave 3 choices"):
        count_properties({**long, "minProperties": 2}, "#")
