"""JSON schemas inside users' Lark, special tokens, complements, and options of rules."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from quire.structured import to_grammar_spec
from quire.structured_outputs.check import check
from quire.structured_outputs.lark import inline_schemas, with_complements_of_text, with_schemas
from tests.unit.structured_outputs.grammars import allowed, compiled, follows


def inline(schema: Any) -> str:
    return f"start: %json {json.dumps(schema)}"


@pytest.mark.parametrize(
    ("schema", "good", "others"),
    [
        ({"type": "string", "pattern": "^2023-02-(28|29|30)$", "format": "date"},
         ["2023-02-28"], ["2023-02-29", "2023-02-30"]),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1e-3},
         [0.0005], [0, 0.001]),
        ({"type": "integer", "exclusiveMaximum": 3}, [2], [3, 4]),
        ({"properties": {"a": {"type": "null"}}}, [{}, {"a": None}], [{"b": 1}]),
        ({"type": "string", "pattern": r"^a\x01b$"}, ["a\x01b"], ["ab"]),
        ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, [1, None], ["a"]),
        (True, [1], []),
    ],
)  # fmt: skip
def test_a_schema_inside_lark_is_followed_as_one_alone(
    schema: Any, good: list[Any], others: list[Any]
) -> None:
    inside, alone = compiled(grammar=inline(schema)), compiled(json=schema)
    checks = Draft202012Validator.FORMAT_CHECKER
    for value in [*good, *others]:
        text = json.dumps(value)
        assert follows(inside, text) is follows(alone, text) is (value in good), text
        if value in good:
            assert Draft202012Validator(schema, format_checker=checks).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"items": {"uniqueItems": True}}, r"'uniqueItems' at %json \(line 1\)/items/uniqueItems "),
        ({"propertis": {}}, r"'propertis' at %json \(line 1\)/propertis is unknown; did you mean"),
        ({"minimum": 2**53 + 1}, r"%json \(line 1\)/minimum must be within"),
        ({"oneOf": [{"minimum": 0}, {"minimum": 2}]}, r"alternatives of %json \(line 1\)/oneOf"),
        ({"uniqueItems": True, "x-guidance": {"lenient": True}}, "'uniqueItems' at"),
        ("a", r"%json \(line 1\) must be an object or a boolean, got 'a'"),
        ([{"title": ")" * 99}] * 2, "must be an object"),
    ],
)
def test_a_schema_inside_lark_is_refused_as_one_alone(schema: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(grammar=inline(schema))


def test_what_is_nested_too_deep_is_found_behind_brackets_in_texts() -> None:
    schema: Any = {}
    for _ in range(70):
        schema = {"title": "}", "items": schema}
    with pytest.raises(ValueError, match="nested 71 deep, the limit is 64"):
        compiled(grammar=inline(schema))


def test_every_schema_is_found_and_nothing_else() -> None:
    source = r"""%ignore /[%]json \/ {"a"/  // %json {"b"
start: "%json {" one <%json> "\"%json"i # "%json
one: %json
  {"const": "%json {}"} | %json{"const": "\"/#"}%json true | /\//
two: %regex {"substring_words": "%json"} %json []"""
    found = list(inline_schemas(source))
    assert [(one.schema, one.path) for one in found] == [
        ({"const": "%json {}"}, "%json (line 3)"),
        ({"const": '"/#'}, "%json (line 4)"),
        (True, "%json (line 4)"),
        ([], "%json (line 5)"),
    ]
    assert [source[one.start : one.end] for one in found][1:] == [
        r'%json{"const": "\"/#"}',
        "%json true",
        "%json []",
    ]
    assert with_schemas(source, lambda one: "X").splitlines()[2:] == [
        "one: X | XX | /\\//",
        'two: %regex {"substring_words": "%json"} X',
    ]


def test_schemas_beside_other_rules_are_followed() -> None:
    grammar = compiled(grammar='start: "<" %json{"const": 1} one\none: ">" %json\n{"const": "é"}')
    assert follows(grammar, '<1>"é"') and not follows(grammar, '<1>"e"')


def test_text_that_is_no_json_is_refused() -> None:
    for text in ("{const: 1}", "", '{"const": 1', "x"):
        with pytest.raises(ValueError, match="no JSON schema after %json in line 2: "):
            check(to_grammar_spec({"grammar": f"start: a\na: %json {text}"}))


@pytest.mark.parametrize(
    "schema",
    [
        '{"const": NaN}',
        '{"maximum": 1e999}',
        '{"default": Infinity}',
        '{"enum": [-Infinity]}',
        r'{"title": "\ud800"}',
    ],
)
def test_what_only_looks_like_json_is_refused_as_in_a_schema_alone(schema: str) -> None:
    message = (
        "no JSON schema after %json in line 1: .*(not JSON comp|surrogates).*; use JSON's types"
    )
    with pytest.raises(ValueError, match=message):
        check(to_grammar_spec({"grammar": f"start: %json {schema}"}))
    with pytest.raises(ValueError, match=r"not JSON comp|surrogates"):
        check(to_grammar_spec({"json": schema}))


@pytest.mark.parametrize("option", ["temperature=0.0", 'stop = "x"', "lazy, temperature=1"])
def test_an_option_of_a_rule_that_would_have_no_effect_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match="of a rule in line 2 of the lark grammar cannot be hon"):
        compiled(grammar=f"start: g\ng[{option}]: /[a-e]/")


@pytest.mark.parametrize("token", ["<[1]>", "<[^65-70]>", "<[*]>", "<|im_start|>", "<any>"])
def test_a_special_token_is_refused_since_no_text_has_any(token: str) -> None:
    message = f"the special token {re.escape(token)} in line 2 of the lark grammar cannot be hon"
    with pytest.raises(ValueError, match=message):
        compiled(grammar=f'start: a // <[1]>\na: "<[1]>" {token} /<x>/')


def test_what_looks_like_a_special_token_within_a_text_is_text() -> None:
    grammar = compiled(grammar='start: "<[1]>" /<x>/ %json {"const": "<y>"} // <[1]>')
    assert follows(grammar, '<[1]><x>"<y>"')


@pytest.mark.parametrize(
    ("source", "good", "bad"),
    [
        ("start: A\nA: ~/(?s:.*)Paris(?s:.*)/", ["", "Oslo", "Pari"], ["Paris", "in Paris."]),
        ("start: A\nA: ~/yes|no/", ["", "y", "yesno"], ["yes", "no"]),
        ('start: "<" A ">"\nA: /[a-z]+/ & ~/x/', ["<y>", "<xx>"], ["<x>", "<", "<y"]),
        ('start: A "b"\nA: ~/(?s:.*)b(?s:.*)/', ["b", "aab"], ["", "a", "bb"]),
    ],
)
def test_a_complement_forbids_what_it_names_and_ends_nothing(
    source: str, good: list[str], bad: list[str]
) -> None:
    grammar = compiled(grammar=source)
    assert [one for one in [*good, *bad] if follows(grammar, one)] == good


def test_a_complement_has_no_bytes_that_are_no_text() -> None:
    """Behind "Paris" they would make it another text, which may go on."""
    grammar = compiled(grammar="start: A\nA: ~/(?s:.*)Paris(?s:.*)/")
    assert follows(grammar, "É日😀")
    found = allowed(grammar, list(b"Pari"))
    assert found is not None and ord("s") not in found
    assert found.isdisjoint([*range(0x80, 0xC2), *range(0xF5, 0x100)])


def test_what_a_complement_is_of_is_found() -> None:
    source = 'start: "~"~"x"i..."y" // ~/x/\nA: ~( /x\\/)/ | ["y" ")"] ~B) ~ B? | B~2..3 ~[B]'
    assert with_complements_of_text(source).splitlines() == [
        'start: "~" QUIRE_COMPLEMENT_0 ..."y" // ~/x/',
        "A:  QUIRE_COMPLEMENT_1   QUIRE_COMPLEMENT_2 ? | B~2..3  QUIRE_COMPLEMENT_3 ",
        'QUIRE_COMPLEMENT_0: ~"x"i & /(?s:.*)/',
        'QUIRE_COMPLEMENT_1: ~( /x\\/)/ | ["y" ")"] ~B) & /(?s:.*)/',
        "QUIRE_COMPLEMENT_2: ~ B & /(?s:.*)/",
        "QUIRE_COMPLEMENT_3: ~[B] & /(?s:.*)/",
    ]


@pytest.mark.parametrize("atom", ["~/x/", "(/x/", "%regex {}", ""])
def test_a_complement_of_nothing_that_can_be_found_is_refused(atom: str) -> None:
    with pytest.raises(ValueError, match="the complement ~ in line 2 of the lark grammar cannot"):
        compiled(grammar=f"start: A\nA: ~{atom}")


def test_other_options_of_rules_are_followed() -> None:
    for option, good, bad in (
        ("lazy", "ab", "aab"),
        ('suffix="x"', "aaxb", "aab"),
        ("max_tokens=2", "aab", "aaab"),
        ("capture", "aab", "ab!"),
    ):
        grammar = compiled(grammar=f'start: t "b" // temperature=1\nt[{option}]: /a+/')
        assert follows(grammar, good) and not follows(grammar, bad), option
