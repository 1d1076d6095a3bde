"""Schemas of texts inside tags in free text: what is not followed to the letter is refused."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from quire.structured import Grammar
from quire.structured_outputs.tag_patterns import MAX_LENGTH, why_not
from tests.unit.structured_outputs.grammars import allowed, compiled, follows, random_text

CHARACTERS = [*map(chr, range(0x80)), "é", "日"]


def in_tag(schema: Any) -> Grammar:
    tag = {"begin": "<f>", "schema": schema, "end": "</f>"}
    return compiled(structural_tag={"structures": [tag], "triggers": ["<f>"]})


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "a",
            "^a+$",
            r"^[A-Z]{2,3}[0-9]*$",
            r"^(?:a|b)\.\d$",
            "^a$|^(?:b|c)$",
            r"^\w+@(?P<x>\S+)\ $",
        ),
        *(r'^[^"\\]+$', r"^.+$", r'^["a]$', r"^\x41\u0042$", r"^[\s\S]*?$", "^é日$", r"^[\n\ta]$"),
    ],
)
def test_what_a_tag_admits_is_json_that_matches(pattern: str) -> None:
    grammar = in_tag({"type": "string", "pattern": pattern})
    texts = [*CHARACTERS, *("aa", "AB", "AB1", "a.1", "b.5", 'a"', "a\\n", "x@y ", "é日")]
    for text in {json.dumps(one) for one in texts} | {f'"{one}"' for one in texts}:
        if follows(grammar, f"<f>{text}</f>"):
            assert re.search(pattern, json.loads(text)), text


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("^(?=a)a$", "it has look-around, or flags"),
        ("^(?<!a)b$", "it has look-around"),
        ("(?i)a", "or flags"),
        ("a^b", "an anchor is neither"),
        ("a$b", "an anchor is neither"),
        ("(a$)b", "an anchor is neither"),
        ("b(^a|c)", "an anchor is neither"),
        ("^^a", "an anchor is neither"),
        ("a*+a", "is a possessive count"),
        ("a{2}+a", "is a possessive count"),
        ('^"$', "must be escaped in JSON"),
        (r"^\\$", "must be escaped"),
        (r"a\n", "must be escaped"),
        ("a\tb", "must be escaped"),
        (r"\x22", "must be escaped"),
        (r"\u005c", "must be escaped"),
        (r"\0", "must be escaped"),
        (r'["\\-]', "has only what must be escaped in JSON"),
        (r"[\n]", "has only"),
        (r"[\x22]", "has only"),
        (r"a\b", "is unknown"),
        (r"\cA", "is unknown"),
        (r"[a\q]", "has an unknown escape"),
        (r"\ud83d", "must be escaped"),
        ("[z-a]", "ends before it begins"),
        ("[]a]", "a class is empty or has no end"),
        ("a{,3}", "begins no count"),
        ("^*a", "nothing stands before the count"),
        (r"[^\s\S]", "has only"),
        (r"\D" * 2000, "it is too long"),
    ],
)
def test_a_pattern_that_is_not_followed_is_refused(pattern: str, reason: str) -> None:
    assert reason in (why_not(pattern) or "")
    with pytest.raises(ValueError, match=r"'pattern' at .* cannot be honoured inside a structural"):
        in_tag({"properties": {"a": {"type": "string", "pattern": pattern}}})


def test_lengths_are_kept_and_leave_no_room_for_raw_characters() -> None:
    grammar = in_tag({"type": ["string", "null"], "minLength": 1, "maxLength": 2})
    for text in ('"a"', '"é日"', "null"):
        assert follows(grammar, f"<f>{text}</f>")
    for text in ('""', '"abc"', '"\t"', '"a\x01"', '"""', '"\\"'):
        assert not follows(grammar, f"<f>{text}</f>")
    assert not follows(in_tag({"maxLength": 0}), '<f>"a"</f>')
    assert follows(in_tag({"minLength": 2}), '<f>"abc"</f>')
    for schema, message in (
        ({"pattern": "^a+$", "maxLength": 3}, "it stands beside lengths"),
        ({"maxLength": MAX_LENGTH + 1}, "lengths may be 1000 at most, and 1001 is more"),
    ):
        with pytest.raises(ValueError, match=message):
            in_tag(schema)


def test_a_required_name_without_a_schema_is_refused() -> None:
    for schema in (
        {"type": "object", "required": ["a"]},
        {"properties": {"a": {}}, "required": ["a", "b"], "additionalProperties": False},
    ):
        with pytest.raises(ValueError, match="/required is none of properties"):
            in_tag(schema)
    assert not follows(in_tag({"properties": {"a": {}}, "required": ["a"]}), "<f>{}</f>")


def test_names_that_are_open_beside_those_that_are_given_are_refused() -> None:
    """One of those might be written with escapes, as if it were another."""
    named = {"type": "object", "properties": {"a": {"type": "string"}}}
    for others in (True, {"type": "integer"}):
        with pytest.raises(ValueError, match=r"'additionalProperties' at .* make it false"):
            in_tag({**named, "additionalProperties": others})
    assert not follows(in_tag(named), r'<f>{"\u0061": 1}</f>')
    assert follows(
        in_tag({"additionalProperties": {"type": "integer"}, "type": "object"}), '<f>{"a": 1}</f>'
    )


def only_tag(schema: Any) -> Grammar:
    """Of which a text has nothing else."""
    content = {"type": "json_schema", "json_schema": schema}
    tag = {"type": "tag", "begin": "<f>", "content": content, "end": "</f>"}
    once = {"at_least_one": True, "stop_after_first": True}
    several = {"type": "triggered_tags", "triggers": ["<f"], "tags": [tag], **once}
    return compiled(structural_tag={"type": "structural_tag", "format": several})


@pytest.mark.parametrize(
    "pattern",
    [
        *("^[^€]{1,6}$", "^.é?$", "^[^a]?é$", "^café .+$", "^(?:€|\\$)[^,]+$", "^[^é-ü]b$", "^😀$"),
        *(r"^\D\d$", r"^\S+@\S+$", r"^[^\s\d]{2}$", r"^\W$", r"^[à-€😀-😃]+$", "b+", "^a|b$|c"),
        *(r"^x(?:ef*)?$", r"^(?:f*e)??a*?$"),
    ],
)
def test_random_texts_by_a_pattern_are_json_that_matches(pattern: str) -> None:
    grammar, chance = only_tag({"type": "string", "pattern": pattern}), random.Random(0)
    texts = [random_text(grammar, chance) for _ in range(25)]  # each is UTF-8
    ended = [text.removeprefix("<f>").removesuffix("</f>") for text in texts if text is not None]
    assert ended
    for text in ended:
        assert re.search(pattern, json.loads(text)), text


@pytest.mark.parametrize("character", ["", "é", "日", "😀"])
@pytest.mark.parametrize(
    "schema", [{"maxLength": 4}, {"pattern": "^[^x]*$"}, {"pattern": "^.*€?$"}]
)
def test_bytes_that_are_no_character_are_never_allowed(schema: Any, character: str) -> None:
    grammar = only_tag({"type": "string", **schema})
    begin = [*b'<f>"', *character.encode()]
    firsts = allowed(grammar, begin)
    assert firsts is not None and not firsts & {0xC0, 0xC1, *range(0xF5, 0x100), ord("\n")}
    for first, wanted in ((0xE0, (0xA0, 0xBF)), (0xED, (0x80, 0x9F)), (0xF0, (0x90, 0xBF)),
                          (0xF4, (0x80, 0x8F)), (0xE1, (0x80, 0xBF))):  # fmt: skip
        seconds = allowed(grammar, [*begin, first])
        assert seconds is not None and (min(seconds), max(seconds)) == wanted


def test_a_pattern_without_anchors_is_looked_for() -> None:
    for pattern in ("b+", "^ab|b$", "(?:b)"):
        grammar = in_tag({"type": "string", "pattern": pattern})
        assert [text for text in ("b", "abc", "ab", "xab", "é", "bé") if follows(
            grammar, f'<f>"{text}"</f>')] == [
            text for text in ("b", "abc", "ab", "xab", "é", "bé") if re.search(pattern, text)
        ]  # fmt: skip


@pytest.mark.parametrize("in_tag", [False, True])
def test_a_grammar_of_all_but_some_characters_has_no_halves_of_pairs(in_tag: bool) -> None:
    source = 'root ::= "[^" [^"-] # [^x]\n'
    content = {"type": "grammar", "grammar": source}
    grammar = free_of_json(content) if in_tag else compiled(grammar=source)
    assert follows(grammar, "[^é") and follows(grammar, "[^😀") and not follows(grammar, "[^-")
    assert max(allowed(grammar, [*b"[^", 0xED]) or ()) == 0x9F


def free_of_json(content: Any) -> Grammar:
    return compiled(structural_tag={"type": "structural_tag", "format": content})


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"\x61b", ["ab"], ["\u061b", "a"]),
        ("^ab|cd$", ["ab", "cd"], ["abx", "xcd", "b"]),
        (r"\Aa.b\Z", ["aéb", 'a"b', "a\\b"], ["a\nb", "ab", "xaxb"]),
        (r"[^a]\n", ["é\n", "\n\n", "😀\n"], ["a\n", "é"]),
        (r"\S\u00e9(?:ab*)?", ["xé", "日éab"], ["xéb", " é"]),
        (r"[\u{4e00}-\u{9fff}]+\_\u{1F600}", ["日_😀"], ["a_😀", "日_", "日u{1F600}"]),
    ],
)
def test_the_content_of_a_tag_is_the_whole_match(
    pattern: str, good: list[str], bad: list[str]
) -> None:
    grammar = free_of_json({"type": "regex", "pattern": pattern})
    assert [text for text in good if not follows(grammar, text)] == []
    assert [text for text in bad if follows(grammar, text)] == []


@pytest.mark.parametrize("pattern", [".", "[^a]", r"\S", r"[\s\S]"])
def test_the_content_of_a_tag_has_no_halves_of_pairs(pattern: str) -> None:
    grammar = free_of_json({"type": "regex", "pattern": pattern})
    assert max(allowed(grammar, [0xED]) or ()) == 0x9F


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("a$b", "an anchor is neither"),
        ("a(?=b)", "it has look-around"),
        (r"\ud83d", "is no character"),
        (r"\u{110000}", "is unknown"),
        (r"[^\s\S]", "has only what is no character"),
    ],
)
def test_content_that_is_not_followed_is_refused(pattern: str, reason: str) -> None:
    content = {"type": "regex", "pattern": pattern}
    tag = {"type": "tag", "begin": "<f>", "content": content, "end": "</f>"}
    place = r"at structural_tag\.format\.elements\[0\]\.content\.pattern cannot be honoured: .*"
    with pytest.raises(ValueError, match=place + re.escape(reason)):
        free_of_json({"type": "sequence", "elements": [tag]})
