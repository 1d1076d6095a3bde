"""Texts that are numbers: exactly those in range, each written in one way."""

from __future__ import annotations

import re
from typing import Any

import pytest

from quire.structured_outputs.number_formats import NUMBER_PATTERNS
from tests.unit.structured_outputs.grammars import compiled, follows

RANGES = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32, 64)},
}


@pytest.mark.parametrize("format", RANGES)
def test_integers_are_those_in_range(format: str) -> None:
    low, high = RANGES[format]
    pattern = re.compile(NUMBER_PATTERNS[format])
    numbers = [*range(-1200, 1200), *(near + i for near in (low, high) for i in range(-1200, 1200))]
    numbers += [sign * 10**i + j for i in range(21) for j in (-1, 0, 1) for sign in (1, -1)]
    for number in numbers:
        assert bool(pattern.search(str(number))) is (low <= number <= high), number
    for text in ("", "-", "-0", "01", "+1", "1.0", "1e1", " 1", "x"):
        assert not pattern.search(text), text


@pytest.mark.parametrize("format", ["float", "double", "decimal"])
def test_fractions_are_decimals(format: str) -> None:
    pattern = re.compile(NUMBER_PATTERNS[format])
    for text in ("0", "-0.50", "12.25", "9" * 38):
        assert pattern.search(text), text
    for text in ("", "-", ".5", "1.", "01", "1e5", "NaN", "1,5"):
        assert not pattern.search(text), text
    assert bool(pattern.search("9" * 309)) is (format == "decimal")


def test_they_are_followed_with_what_is_beside_them() -> None:
    grammar = compiled(json={"type": "string", "format": "int64", "maxLength": 4})
    for text in ('"0"', '"-999"', '"9999"'):
        assert follows(grammar, text)
    for text in ('"},an"', '""', '"10000"', "1", '"0001"'):
        assert not follows(grammar, text)
    either = compiled(json={"type": ["string", "integer"], "format": "uint8"})
    for text in ('"255"', "255", '"0"', "0"):
        assert follows(either, text)
    for text in ('"256"', "256", '"a"', "-1"):
        assert not follows(either, text)
    assert not follows(compiled(json={"type": "string", "format": "decimal"}), '"abc"')


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"format": "int64", "pattern": "^0x[0-9a-f]+$"}, '"0x1f"', '"12"'),
        ({"format": "double", "pattern": "^[0-9]+(e[0-9]+)?$"}, '"1e5"', '"x"'),
        ({"format": "decimal", "const": "+1"}, '"+1"', '"1"'),
        ({"format": "decimal", "enum": [".75", "1,5"]}, '".75"', '"1"'),
    ],
)
def test_what_is_beside_them_says_how_numbers_are_written(
    schema: dict[str, Any], good: str, bad: str
) -> None:
    text = {"type": "string", **schema}
    tag = {"structures": [{"begin": "<f>", "schema": text, "end": ";"}], "triggers": ["<f"]}
    alone, within = compiled(json=text), compiled(structural_tag=tag)
    assert follows(alone, good) and not follows(alone, bad)
    assert follows(within, f"<f>{good};") and not follows(within, f"<f>{bad};")


def test_without_a_type_they_are_numbers_or_any_text() -> None:
    grammar = compiled(json={"format": "float"})
    assert follows(grammar, "1.5") and follows(grammar, '"a"')


@pytest.mark.parametrize("word", ["maxLength", "minLength"])
def test_in_tags_lengths_beside_them_are_refused_by_the_name_of_the_format(
    word: str,
) -> None:
    text = {"type": "string", "format": "int64", word: 1}
    schema = {"type": "object", "properties": {"a": text}}
    tag = {"structures": [{"begin": "<f>", "schema": schema, "end": ";"}], "triggers": ["<f"]}
    with pytest.raises(ValueError, match=rf"'format' at .*/a/format .* beside '{word}'"):
        compiled(structural_tag=tag)
