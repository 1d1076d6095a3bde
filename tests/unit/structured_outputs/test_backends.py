"""Grammars of every kind: which texts follow them, and which tokens their masks allow."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from quire.structured_outputs.structural_tags import tag_as_lark
from tests.unit.structured_outputs.grammars import (
    END,
    NUM_TOKENS,
    NUM_WORDS,
    OTHER_END,
    SPECIAL,
    allowed,
    compiled,
    follows,
)

CALL = {"type": "tag", "begin": "<f>", "content": {}, "end": "</f>"}
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CALL["content"] = {"type": "json_schema", "json_schema": NUMBER}


def tags(**options: Any) -> dict[str, Any]:
    several = {"type": "tags_with_separator", "tags": [CALL], "separator": ";", **options}
    return {"type": "structural_tag", "format": several}


TRIGGERED = {
    "structures": [{"begin": "<f>", "schema": NUMBER, "end": "</f>"}],
    "triggers": ["<f"],
}
ONE = '<f>{"n": 1}</f>'


@pytest.mark.parametrize(
    ("constraint", "good", "bad"),
    [
        ({"regex": "a+|bc"}, ["a", "aa", "bc"], ["", "b", "abc", "xa", "bca"]),
        ({"regex": "^[^x]{2}$"}, ["é日", "a\n"], ["a", "ax", "abc"]),
        ({"choice": ["no", "no way", "日本"]}, ["no", "no way", "日本"], ["", "n", "no w", "日"]),
        ({"choice": ['a.b"\\n', "(x"]}, ['a.b"\\n', "(x"], ["axb", "x"]),
        ({"json_object": True}, ["{}", '{"a": [1, null]}'], ["", "[]", "1", '{"a"}']),
        ({"grammar": 'start: "(" start ")" | "x"'}, ["x", "((x))"], ["(x", "()", ""]),
        ({"grammar": 'root ::= "(" root ")" | "x"'}, ["x", "((x))"], ["(x", "()", ""]),
        ({"structural_tag": tags()}, ["", ONE, f"{ONE};{ONE}"], ["x", f"{ONE};", "<f>{}</f>"]),
        ({"structural_tag": tags(at_least_one=True)}, [ONE], ["", "hi"]),
        ({"structural_tag": tags(stop_after_first=True)}, [ONE], [f"{ONE};{ONE}"]),
        ({"structural_tag": TRIGGERED}, ["hi", ONE, f"so {ONE}."], ["<f>{}</f>", "<f>"]),
    ],
)
def test_texts(constraint: dict[str, Any], good: list[str], bad: list[str]) -> None:
    grammar = compiled(**constraint)
    assert [text for text in good if not follows(grammar, text)] == []
    assert [text for text in bad if follows(grammar, text)] == []


SCHEMAS: list[tuple[Any, list[Any], list[Any]]] = [
    ({"type": "string", "minLength": 2, "maxLength": 3}, ["ab", "日本語"], ["a", "abcd"]),
    ({"type": "string", "pattern": "^a+$"}, ["a", "aaa"], ["", "ab"]),
    ({"type": "string", "pattern": "b"}, ["b", "abc"], ["ac"]),
    ({"type": "string", "format": "date"}, ["2024-02-29", "0001-12-31"],
     ["2023-02-29", "2100-02-29", "2024-04-31", "0000-01-01"]),
    ({"type": "string", "format": "time"}, ["23:59:59Z", "01:02:03.5+01:00"],
     ["24:00:00Z", "23:59:60Z", "1:02:03Z"]),
    ({"type": "string", "format": "uuid"}, ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["2eb8aa08"]),
    ({"type": "string", "format": "ipv4"}, ["1.2.3.4"], ["1.2.3.256", "1.2.3"]),
    ({"type": "integer", "minimum": -3, "exclusiveMaximum": 12}, [-3, 0, 11], [-4, 12, 1.5]),
    ({"type": "number", "minimum": 0.5, "maximum": 2}, [0.5, 1, 2], [0.4, 2.1]),
    ({"type": "integer", "multipleOf": 7}, [0, 7, 140], [1, 8]),
    ({"enum": ["a", 1, None, {"k": [1]}]}, ["a", 1, None, {"k": [1]}], ["b", 2, {}]),
    ({"const": {"x": 1}}, [{"x": 1}], [{"x": 2}, {}]),
    ({"type": ["integer", "null"]}, [1, None], ["a", True]),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
     [[1], [1, 2]], [[], [1, 2, 3], ["a"]]),
    ({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
     [[1, True], [1]], [[True], [1, True, 1]]),
    ({"type": "array", "items": [{"type": "integer"}], "additionalItems": False},
     [[1], []], [["a"], [1, 1]]),
    ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]},
     [{"a": 1}, {"a": 1, "b": []}], [{}, {"b": 1}, {"a": "x"}, {"a": 1, "c": 1}]),
    ({"type": "object", "additionalProperties": {"type": "integer"}}, [{}, {"x": 1}], [{"x": "y"}]),
    ({"type": "object", "patternProperties": {"^k": {"type": "null"}},
      "additionalProperties": False}, [{}, {"k1": None}], [{"x": None}, {"k": 1}]),
    ({"anyOf": [{"type": "integer"}, {"type": "string", "maxLength": 1}]}, [5, "a"], ["ab", None]),
    ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, [5, None], ["ab", 1.5]),
    ({"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"], "type": "object"},
                {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]},
     [{"a": 1, "b": 2}], [{"a": 1}, {"a": 1, "b": "x"}]),
    ({"$defs": {"n": {"type": "integer"}}, "type": "array", "items": {"$ref": "#/$defs/n"}},
     [[], [1]], [["a"]]),
    ({"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"const": 1}},
      "required": ["v"]}, [{"v": 1}, {"next": {"v": 1}, "v": 1}], [{"next": {}, "v": 1}, {}]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "good", "bad"), SCHEMAS, ids=[str(s)[:40] for s, *_ in SCHEMAS])
def test_a_schema_admits_what_validates(schema: Any, good: list[Any], bad: list[Any]) -> None:
    grammar = compiled(json=schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for value in good:
        assert follows(grammar, json.dumps(value, ensure_ascii=False)), value
        if "additionalItems" not in schema:  # is none of this draft
            assert validator.is_valid(value)
    assert [value for value in bad if follows(grammar, json.dumps(value))] == []


def test_whitespace_is_bounded() -> None:
    grammar = compiled(json=NUMBER)
    for text in ('{"n":1}', '{"n": 1}', '{\n  "n": 1\n}', '{"n"  :1}'):
        assert follows(grammar, text), text
    for text in ('{"n":   1}', '{"n":1\n\n}', '{"n":\t1}', ' {"n":1}', '{"n":1} '):
        assert not follows(grammar, text), text
    assert not follows(compiled(json=NUMBER, disable_any_whitespace=True), '{"n": 1}')
    assert follows(compiled(json=NUMBER, whitespace_pattern="\\t{1,3}"), '{"n":\t\t1}')
    assert not follows(compiled(structural_tag=TRIGGERED), '<f>{"n":     1}</f>')


def test_objects_can_be_closed_everywhere() -> None:
    schema = {"type": "object", "properties": {"a": {}}, "additionalProperties": True}
    assert follows(compiled(json=schema), '{"b":1}')
    assert not follows(compiled(json=schema, disable_additional_properties=True), '{"b":1}')


@pytest.mark.parametrize(
    "constraint",
    [{"json": {}}, {"regex": "(.|\\n)*"}, {"grammar": "root ::= [^\\x00]*"},
     {"structural_tag": TRIGGERED}],
    ids=["json", "regex", "ebnf", "tags"],
)  # fmt: skip
def test_special_tokens_and_further_ends_are_never_allowed(constraint: dict[str, Any]) -> None:
    grammar = compiled(**constraint)
    for token_ids in ([], [ord('"'), ord("a")]):
        found = allowed(grammar, token_ids)
        assert found is not None and len(found) > 2
        assert not found & {SPECIAL, OTHER_END}


def test_tokens_of_several_bytes_and_parts_of_characters_are_allowed() -> None:
    found = allowed(compiled(regex="(ab|é)+"), [])
    assert found == {ord("a"), 256 + 3, 0xC3, 256 + 5}


@pytest.mark.parametrize("constraint", [{"regex": "abc"}, {"grammar": 'root ::= "abc"'}])
def test_states_are_copied_and_rolled_back(constraint: dict[str, Any]) -> None:
    state = compiled(**constraint).new_state()
    assert state.accept(ord("a")) and not state.is_done()
    other = state.copy()
    assert other.accept(ord("b")) and other.accept(ord("c"))
    mask = np.zeros(NUM_WORDS, dtype=np.int32)
    other.fill(mask)
    assert np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist() == [END]
    other.rollback(2)
    assert other.accept(ord("b"))
    assert state.accept(ord("b")) and not state.copy().accept(ord("x"))


def test_many_states_are_filled_as_one_is() -> None:
    for constraint in ({"regex": "[a-z]*"}, {"grammar": "root ::= [a-z]*"}):
        grammar = compiled(**constraint)
        states = [grammar.new_state() for _ in range(40)]
        masks = np.zeros((40, NUM_WORDS), dtype=np.int32)
        grammar.fill_all(states, masks)
        wanted = np.zeros(NUM_WORDS, dtype=np.int32)
        states[0].fill(wanted)
        assert (masks[:, : NUM_TOKENS // 32] == wanted[: NUM_TOKENS // 32]).all()


def test_schemas_that_xgrammar_would_pass_over_are_refused_in_its_tags() -> None:
    for schema in ({"allOf": [{"type": "integer"}]}, {"$ref": "#/$defs/a", "type": "string",
                   "maxLength": 3, "$defs": {"a": {"type": "string"}}}):  # fmt: skip
        tag = {"structures": [{"begin": "<f>", "schema": schema, "end": ""}], "triggers": ["<f"]}
        with pytest.raises(ValueError, match="cannot be honoured inside a structural tag"):
            compiled(structural_tag=tag)


def test_plain_tags_are_written_in_lark_and_others_are_not() -> None:
    assert (
        tag_as_lark(tags(), lambda schema: "J") == '((("<f>" J "</f>")) (";" (("<f>" J "</f>")))*)?'
    )
    free = {"format": {"type": "triggered_tags", "triggers": ["<f"], "tags": [CALL]}}
    assert tag_as_lark(free, lambda schema: "J") is None
    assert tag_as_lark({"format": {**CALL, "zzz": 1}}, lambda schema: "J") is None
    assert tag_as_lark({}, lambda schema: "J") is None
