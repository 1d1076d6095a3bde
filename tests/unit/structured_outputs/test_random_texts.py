"""Texts that random tokens finish are valid, whatever their schema says of numbers and names."""

from __future__ import annotations

import json
import random
from decimal import Decimal
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.unit.structured_outputs.grammars import compiled, follows, random_text

NUMBER = {"type": "number"}
OBJECT = {"type": "object"}
INTEGERS = {"additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9}}


def exact(text: str) -> Any:
    """As decimals: 0.3 is a multiple of 0.1."""
    return json.loads(text, parse_float=Decimal)


def finished(schema: Any, seed: int, count: int) -> list[str]:
    """All of them valid."""
    grammar, chance = compiled(json=schema), random.Random(seed)
    texts = [random_text(grammar, chance) for _ in range(count)]
    validator = Draft202012Validator(exact(json.dumps(schema)))
    ended = [text for text in texts if text is not None]
    assert [text for text in ended if not validator.is_valid(exact(text))] == []
    return ended


@pytest.mark.parametrize(
    ("bounds", "good", "bad"),
    [
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 0.001}, ["0.0005"], ["0", "-0", "0.0"]),
        ({"exclusiveMinimum": 1, "exclusiveMaximum": 1.05}, ["1.01"], ["1", "1.0"]),
        ({"exclusiveMinimum": 10, "maximum": 10.5}, ["10.5", "10.2"], ["10", "10.00"]),
        ({"exclusiveMinimum": -0.5, "exclusiveMaximum": 0}, ["-0.25"], ["0", "-0", "-0.5"]),
        ({"exclusiveMinimum": -2.1, "exclusiveMaximum": -2}, ["-2.05"], ["-2", "-2.0", "-2.1"]),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 0.999}, ["0.5", "0.001"], ["0", "0.999"]),
        ({"minimum": -0.476, "exclusiveMaximum": 0, "multipleOf": 0.1}, ["-0.3"], ["-0", "-0.5"]),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, ["0.9", "0.99", "0.05"], ["0", "1"]),
        ({"allOf": [{"exclusiveMinimum": 3}, {"exclusiveMaximum": 3.5}]}, ["3.25"], ["3", "3.5"]),
        ({"anyOf": [{"exclusiveMinimum": 3}, {"type": "null"}], "maximum": 3.5}, ["3.5"], ["3"]),
        ({"exclusiveMinimum": 1000, "maximum": 1001}, ["1000.5"], ["1000.00000000000000003"]),
        ({"minimum": 0.1234567890123456, "maximum": 0.2}, ["0.15"], ["0.1234567890123455"]),
    ],
)  # fmt: skip
def test_numbers_lie_within_their_bounds(
    bounds: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    schema = {**NUMBER, **bounds}
    grammar = compiled(json=schema)
    assert [text for text in good if not follows(grammar, text)] == []
    assert [text for text in bad if follows(grammar, text)] == []
    assert finished(schema, seed=0, count=15)


def random_bounds(chance: random.Random) -> dict[str, Any]:
    """Close to each other, and often at an integer."""
    low = chance.choice([0, 1, -1, 10, -2, round(chance.uniform(-3, 3), chance.randint(1, 4))])
    high = low + chance.choice([0.001, 0.05, 0.1, 0.5, 0.999, 1, 1.5, 40])
    low, high = (low, high) if chance.random() < 0.5 else (-high, -low)
    least = {chance.choice(["minimum", "exclusiveMinimum"]): round(low, 5)}
    most = {chance.choice(["maximum", "exclusiveMaximum"]): round(high, 5)}
    if chance.random() < 0.2:
        return {"allOf": [least, most]}
    step = {"multipleOf": 0.001} if chance.random() < 0.2 and high - low > 0.01 else {}
    return {**least, **most, **step}


def test_numbers_lie_within_random_bounds() -> None:
    chance = random.Random(0)
    ended = [
        len(finished({**NUMBER, **random_bounds(chance)}, seed, count=4)) for seed in range(120)
    ]
    assert sum(ended) > 350, ended


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"propertyNames": {"enum": ["a", "b", "c"]}, "minProperties": 2},
         ['{"a":1,"c":2}', '{"a":1,"b":2,"c":3}'], ['{"a":1}', '{"a":1,"a":2}', "{}"]),
        ({"propertyNames": {"enum": ["a", "b", "c"]}, "minProperties": 2, "maxProperties": 2},
         ['{"b":1,"c":2}'], ['{"a":1,"b":2,"c":3}', '{"a":1,"a":2}']),
        ({"propertyNames": {"enum": ["a", "b"]}, "minProperties": 1}, ['{"b":1}'], ["{}"]),
        ({"properties": {"a": {"const": 1}, "b": {"const": 1}, "c": {"const": 1}},
          "additionalProperties": False, "minProperties": 2, "maxProperties": 2.0},
         ['{"a":1,"c":1}'], ['{"a":1}', '{"a":1,"b":1,"c":1}']),
        ({"properties": {"a": {"const": 1}, "b": {"const": 1}, "c": {"const": 1}}, "required":
          ["b"], "additionalProperties": False, "minProperties": 2},
         ['{"a":1,"b":1}', '{"a":1,"b":1,"c":1}'], ['{"b":1}', '{"a":1,"c":1}']),
        ({"properties": {"a": {"const": 1}}, "required": ["a"], "minProperties": 2.0},
         ['{"a":1,"b":1}'], ['{"a":1}', '{"a":1,"a":1}']),
        ({"minProperties": 1, "maxProperties": 2}, ['{"a":1}', '{"a":1,"b":2}'], ["{}"]),
    ],
)  # fmt: skip
def test_objects_have_as_many_properties_as_they_must(
    schema: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    schema = {**OBJECT, **INTEGERS, **schema}
    grammar = compiled(json=schema)
    assert [text for text in good if not follows(grammar, text)] == []
    assert [text for text in bad if follows(grammar, text)] == []
    assert finished(schema, seed=0, count=15)


def kind(value: object) -> dict[str, Any]:
    return {**OBJECT, "properties": {"t": {"const": value}}, "required": ["t"]}


@pytest.mark.parametrize(
    ("alternatives", "good", "bad"),
    [
        ([kind(0), kind(1)], ['{"t":0}', '{"t":1}'], ['{"t":2}', "{}"]),
        ([kind(0), kind(False), kind(None)], ['{"t":0}', '{"t":false}', '{"t":null}'], ["{}"]),
        ([{"const": 1}, {"const": 2}], ["1", "2"], ["3"]),
        ([{"enum": [1, 2]}, {"const": 3}, {"type": "string"}], ["1", "3", '"a"'], ["4"]),
        ([{**NUMBER, "maximum": 0}, {**NUMBER, "minimum": 1}], ["0", "-1", "1"], ["0.5"]),
        ([{"type": "string", "maxLength": 3}, {"type": "string", "minLength": 5}],
         ['"abc"', '"abcba"'], ['"abca"']),
    ],
)  # fmt: skip
def test_one_of_several_holds(alternatives: list[Any], good: list[str], bad: list[str]) -> None:
    schema = {"oneOf": alternatives}
    grammar = compiled(json=schema)
    assert [text for text in good if not follows(grammar, text)] == []
    assert [text for text in bad if follows(grammar, text)] == []
    assert finished(schema, seed=0, count=15)


def test_integers_written_as_numbers_are_counts() -> None:
    for schema, good, bad in (
        ({"type": "array", "minItems": 2.0, "maxItems": 2.0}, "[1,2]", "[1]"),
        ({"type": "string", "minLength": 1.0, "maxLength": 2.0}, '"ab"', '"abc"'),
    ):
        grammar = compiled(json=schema)
        assert follows(grammar, good) and not follows(grammar, bad)
