"""Patterns and names of JSON, and that escapes get past neither."""

from __future__ import annotations

import json
import random
import re
import warnings
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from quire.structured_outputs.quoting import (
    SHORT_ESCAPES,
    allowed_escapes,
    exact_pattern,
    with_exact_patterns,
)
from tests.unit.structured_outputs.grammars import compiled, follows

CHARACTERS = [*map(chr, range(0x80)), "é", "日"]


def written(text: str) -> set[str]:
    """All ways to write it in JSON that matter."""
    long = "".join(f"\\u{ord(one):04x}" for one in text)
    return {json.dumps(text), json.dumps(text, ensure_ascii=False), f'"{long}"'}


def admitted(schema: Any, texts: list[str]) -> list[str]:
    grammar = compiled(json=schema)
    return [text for text in texts if any(follows(grammar, one) for one in written(text))]


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("a+b", "a+b"),
        (r"[a-z]\d", r"[a-z]\d"),
        ('[^"]', r'[^\x00-\x07\x0b\x0e-\x1f\x7f"]'),
        (r"[^]a]", r"[^\x00-\x07\x0b\x0e-\x1f\x7f\]a]"),
        (r"[\x00-!]", r"[\x00-!--\x00]"),
        (r"\P{L}.\\P", r"[\P{L}--\x00].\\P"),
        ("[[a]b]", r"[\[a]b]"),
        ("[a-c--b]", r"[a-c\--b]"),
        ("[a&&b~~c]", r"[a\&\&b\~\~c]"),
        ("[[:alpha:]]", r"[\[:alpha:]]"),
        (r"[\[\-a-]", r"[\[\-a\-]"),
    ],
)
def test_what_becomes_of_a_pattern(pattern: str, wanted: str) -> None:
    assert exact_pattern(pattern) == wanted


@pytest.mark.parametrize(
    "pattern",
    [
        *('^[^"]$', r'^[^"\\]$', r"^[\x00-!]$", r"^(?:[\x00-\x0f]|[\x10-\x1f]|x)$", r"^[^\x7f/]$"),
        *(r"^[^\s\"]$", r"^(?:\x00|[\x01-\x1f])$", r"^\D$", r"^[\D\n]$", r"^.$", r"^[^a-z]$"),
        *("^[[a]$", "^[a-c--b]$", "^[a~~b]$", "^[[:a]$", "^[a&&b]$", "^[+--]$", "^[a^]$"),
    ],
)
def test_no_escape_slips_through_a_pattern(pattern: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of Python, about the meaning in Rust
        good = [one for one in CHARACTERS if Draft202012Validator(schema).is_valid(one)]
    found = admitted(schema, CHARACTERS)
    assert set(found) <= set(good)
    assert {one for one in good if " " <= one != "\x7f"} <= set(found)


def test_random_classes_admit_nothing_else() -> None:
    """Escapes of the library stand for single characters, unless a class holds all of some."""
    chance = random.Random(3)
    pieces = [r"\x00-\x0f", r"\x10-\x1f", r"\x00-!", '"', r"\\", "a", "#-~", r"\n", "[", "-", r"\s"]
    for _ in range(40):
        classes = [
            f"[{chance.choice(['', '^'])}{''.join(chance.sample(pieces, 3))}]" for _ in range(2)
        ]
        pattern = f"^(?:{'|'.join(classes)})$"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                python = re.compile(pattern)
        except re.error:
            continue
        found = admitted({"type": "string", "pattern": pattern}, CHARACTERS)
        # What JSON Schema means by spaces are fewer than Python's.
        wrong = [one for one in found if not python.search(one) and not "\x1c" <= one <= "\x1f"]
        assert not wrong, pattern


def test_no_escaped_name_is_another_one() -> None:
    texts = {"type": "string"}
    others = {"type": "object", "additionalProperties": {"type": "integer"}}
    for said, names in (
        ({"patternProperties": {"^x-": texts}}, ["x-a", "x-é", 'x-"', "b", "é"]),
        ({"patternProperties": {'^[^"]$': texts}}, ["a", '"', "\\", "\n", "\x00", "aa"]),
        ({"properties": {"é": texts, 'a"b': texts, "c": texts}}, ["é", 'a"b', "c", "d"]),
        ({"patternProperties": {'^[^"]$': {}}, "additionalProperties": False}, ["a", '"', "ab"]),
    ):
        schema = {**others, **said}
        grammar, validator = compiled(json=schema), Draft202012Validator(schema)
        for name in names:
            for text in (f"{{{one}: {value}}}" for one in written(name) for value in ("1", '"a"')):
                assert not follows(grammar, text) or validator.is_valid(json.loads(text)), text
        for value in ("1", '"a"'):
            text = f"{{{json.dumps(names[0], ensure_ascii=False)}: {value}}}"
            assert follows(grammar, text) is validator.is_valid(json.loads(text))


def test_listed_texts_are_written_with_the_escapes_that_they_need() -> None:
    for text in ("\x01a", "\x7f", '"\n\t\\', "é"):
        listed = compiled(json={"enum": [{"k": [text]}]})
        assert follows(
            listed, json.dumps({"k": [text]}, ensure_ascii=False).replace("\x7f", r"\u007f")
        )
        assert admitted({"const": text}, [text]) == [text]
    assert allowed_escapes({"items": {"const": "a\nb"}}) == SHORT_ESCAPES
    assert allowed_escapes({"items": {"enum": [{"k": ["\x01"]}]}}) is None
    open_one = {"properties": {"a": {"const": "\x01"}}}
    assert allowed_escapes({**open_one, "additionalProperties": False}) is None
    with pytest.raises(ValueError, match="control characters that must be escaped"):
        allowed_escapes(open_one)
    with pytest.raises(ValueError, match="control characters that must be escaped"):
        compiled(json={**open_one, "additionalProperties": {"type": "integer"}})


LONG = [chr(one) for one in range(0x80) if one and not re.match(r"[\b\t\n\f\r -~]", chr(one))]


@pytest.mark.parametrize("character", LONG)
def test_a_character_that_must_be_escaped_is_written_where_a_pattern_asks_for_it(
    character: str,
) -> None:
    code = f"{ord(character):02x}"
    for one in (character, rf"\x{code}", rf"\u00{code}", rf"[\x{code}]", rf"\x{{{code}}}"):
        grammar = compiled(json={"type": "string", "pattern": f"^a{one}b$"})
        assert follows(grammar, f'"a\\u00{code}b"') and not follows(grammar, '"ab"')


@pytest.mark.parametrize(
    ("pattern", "good"),
    [
        (r"^\v$", ["\v"]),
        (r"^(a\x01b|c)$", ["a\x01b", "c"]),
        (r"^a[\x01\x02]b$", ["a\x01b", "a\x02b"]),
        (r"^a\x01?b$", ["ab", "a\x01b"]),
        (r"^\a\x0b{2}$", ["\a\v\v"]),
        (r"^\x1b\[[^m]m$", ["\x1b[0m"]),
        (r"^[\x01\x09]$", ["\t"]),
        (r"^a[\x01x]b$", ["axb"]),
        (r"^a[\x0b\f]b$", ["a\fb"]),
        (r"^[\x20-\x7f]$", ["a", "~"]),
        (r"^[\x01-\x09]$", ["\b", "\t"]),
    ],
)
def test_texts_of_patterns_that_name_such_characters(pattern: str, good: list[str]) -> None:
    texts = [*good, "", "a", "ab", "a\x02b", "axb", "[0m", "a\x7fb", "\x7f", "\x01"]
    found = admitted({"type": "string", "pattern": pattern}, texts)
    assert set(good) <= set(found)
    assert all(re.search(pattern.replace(r"\a", r"\x07"), one) for one in found)


@pytest.mark.parametrize(
    "pattern", [r"^[\x00-\x7F]*$", r"^[\u0000-\u007F]+$", r"^[\x0e-\x7f]*$", "^[\x01-\x1f]*$"]
)
def test_classes_that_have_others_too_need_no_longer_escapes(pattern: str) -> None:
    text = {"type": "string", "pattern": pattern}
    for others in (True, False):
        grammar = compiled(
            json={"type": "object", "properties": {"a": text}, "additionalProperties": others}
        )
        for one in ("ab", r"\n", r"\u0009", r"\u0001", r"\u0061"):
            is_good = not one.startswith(r"\u") and bool(
                re.fullmatch(pattern, json.loads(f'"{one}"'))
            )
            assert follows(grammar, f'{{"a": "{one}"}}') is is_good, one


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"^a\x01?b$", r"^a\x01*b$", r"^a\x7f{0,2}?b$", r"^a[\x01-\x02]{0,}b$"),
        *("^(a\x01|a)b$", r"^(?:a(?:\x01|(?i)b)|[\x7f(|])$", r"^a\v{0}b|[\x00]$"),
        r"^(?P<x>\x01\(|\x02)?a?[\x01b]$",
    ],
)
def test_a_pattern_that_can_do_without_such_characters_is_narrowed_beside_open_names(
    pattern: str,
) -> None:
    texts = ["ab", "a", "b", "", "a\x01b", "a\x02b", "\x01(b", "aab", "\x7f", "(", "|", "aB"]
    said = pattern.replace("(?i)b", "[bB]")  # Python has flags only in front
    value = {"type": "object", "properties": {"a": {"type": "string", "pattern": pattern}}}
    name = {"type": "object", "patternProperties": {pattern: {"type": "null"}}}
    of_value = compiled(json={**value, "required": ["a"], "additionalProperties": True})
    of_name = compiled(json={**name, "additionalProperties": {"type": "integer"}})
    for text in texts:
        is_plain, does_match = not re.search(r"[\x01-\x1f\x7f]", text), bool(re.search(said, text))
        for one in written(text):
            is_short = is_plain and r"\u" not in one
            assert follows(of_value, f'{{"a": {one}}}') is (is_short and does_match), one
            assert follows(of_name, f"{{{one}: null}}") is (is_short and does_match), one
            assert follows(of_name, f"{{{one}: 1}}") is (is_short and not does_match), one


def test_such_a_character_is_refused_beside_names_that_are_open() -> None:
    name = {"additionalProperties": {"type": "null"}}
    for schema in (
        {"patternProperties": {r"^a\vb$": {}}, "additionalProperties": False},
        {"propertyNames": {"pattern": r"^a\x01b$"}, **name},
        {"properties": {"a": {"pattern": r"\x01"}}, **name},
        {"properties": {"a": {"pattern": r"^(a\x01+|\x02?(b|\x03)[\x04\x05]{1,2}|\v)$"}}, **name},
    ):
        with pytest.raises(ValueError, match="or a pattern, has control characters that must be"):
            compiled(json={"type": "object", **schema})
    closed = {"type": "object", "properties": {"k": {"type": "string", "pattern": "^\\x1b$"}}}
    assert follows(compiled(json=closed), r'{"k": "\u001b"}')


def test_patterns_of_names_that_become_the_same_are_both_kept() -> None:
    said = {"patternProperties": {"[[]": {"type": "string"}, r"[\[]": {"maxLength": 1}}}
    assert list(with_exact_patterns(said)["patternProperties"]) == [r"[\[]", r"[\[](?:)"]


@pytest.mark.parametrize("pattern", [r"^[\x02-\x01]?$", "^[b-a]?$", r"\x01?)", r"(\x01?"])
def test_a_pattern_that_is_none_is_refused_beside_names_that_are_open(pattern: str) -> None:
    with pytest.raises(ValueError, match="regex parse error"):
        compiled(json={"properties": {"a": {"pattern": pattern}}, "additionalProperties": True})
