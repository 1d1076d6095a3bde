"""Schemas that no value follows together, and those of which that is not known."""

from __future__ import annotations

from typing import Any

import pytest

from quire.structured_outputs.contradict import Prover

ROOT = {"$defs": {"text": {"type": "string"}, "loop": {"$ref": "#/$defs/loop"}}}
TEXT = {"$ref": "#/$defs/text"}


def kind(schema: Any, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"k": schema}, "required": ["k"], **more}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "integer"}, {"type": ["string", "null"]}),
        ({"const": 1}, {"const": True}),
        ({"const": "a"}, {"enum": ["b", "c"]}),
        ({"const": {"a": 1}}, {"type": "object", "required": ["b"]}),
        ({"const": [1]}, {"type": "array", "minItems": 2}),
        ({"const": 1.5}, {"type": "integer"}),
        ({"const": None}, {"type": "boolean"}),
        ({"enum": ["a", "bc"]}, {"type": "string", "minLength": 3}),
        ({"type": "number", "maximum": 1}, {"exclusiveMinimum": 1}),
        ({"type": "integer", "minimum": 0.2}, {"type": "number", "maximum": 0.8}),
        ({"type": "string", "maxLength": 3}, {"minLength": 5}),
        ({"type": "array", "maxItems": 3}, {"minItems": 4}),
        (kind({"const": 1}), kind({"const": 2})),
        (kind({"const": 1}, required=[]), kind({"const": 2})),
        (kind(kind({"const": 1})), kind(kind({"const": 2}))),
        (kind({}), {"type": "object", "properties": {"a": {}}, "additionalProperties": False}),
        (TEXT, {"type": "integer"}),
        ({"allOf": [{"type": "integer"}]}, {"anyOf": [TEXT, {"type": "null"}]}),
        ({"type": "integer", "oneOf": [{"minimum": 3}, {"maximum": 0}]}, {"enum": [1, 2]}),
        ({}, False),
    ],
)
def test_schemas_that_contradict_each_other(one: Any, other: Any) -> None:
    assert Prover(ROOT).contradict(one, other)
    assert Prover(ROOT).contradict(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"type": "integer"}, {"type": "number"}),
        ({"const": 1}, {"const": 1.0}),
        ({"const": [1]}, {"const": [1.0]}),
        ({"maximum": 0}, {"minimum": 1}),
        ({"type": "number", "maximum": 1}, {"type": "number", "minimum": 1}),
        ({"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}),
        (kind({"const": 1}, required=[]), kind({"const": 2}, required=[])),
        (kind({"const": 1}, type=["object", "null"]), kind({"const": 2}, type=["object", "null"])),
        (kind({}), {"patternProperties": {"k": {}}, "additionalProperties": False}),
        ({"$ref": "#/$defs/loop"}, {"$ref": "#/$defs/loop"}),
        ({"$ref": "#/properties/a"}, {"type": "integer"}),
        ({"anyOf": [TEXT, {"type": "null"}]}, {"type": ["null", "integer"]}),
        (True, {}),
    ],
)
def test_schemas_that_may_hold_together(one: Any, other: Any) -> None:
    assert not Prover(ROOT).contradict(one, other)
    assert not Prover(ROOT).contradict(other, one)


def test_what_takes_too_many_steps_is_not_known() -> None:
    deep = {"$defs": {"d": kind({"$ref": "#/$defs/d"})}}
    assert not Prover(deep).contradict(deep["$defs"]["d"], {"$ref": "#/$defs/d"})
    ranges = [{"type": "integer", "minimum": 2 * i, "maximum": 2 * i} for i in range(400)]
    assert Prover({}).exclude_each_other(ranges[:50], ranges[:50], [])
    assert not Prover({}).exclude_each_other(ranges, ranges, [])


def test_thousands_are_told_apart_by_their_values() -> None:
    for many in ([{"const": i} for i in range(3000)], [kind({"const": i}) for i in range(3000)]):
        assert Prover({}).exclude_each_other(many, many, [])
        assert not Prover({}).exclude_each_other([*many, many[0]], [*many, many[0]], [])


def test_what_holds_around_alternatives_tells_them_apart() -> None:
    optional = [kind({"const": i}, required=[]) for i in range(2)]
    assert not Prover({}).exclude_each_other(optional, optional, [])
    assert Prover({}).exclude_each_other(optional, optional, [{"required": ["k"]}])
