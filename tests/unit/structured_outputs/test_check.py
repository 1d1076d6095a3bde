"""What is refused before anything is compiled, and that it is named with its place."""

from __future__ import annotations

from typing import Any

import pytest

from quire.structured import GrammarSpec, to_grammar_spec
from quire.structured_outputs import keywords
from quire.structured_outputs.check import MAX_SOURCE_BYTES, check, check_schema


@pytest.mark.parametrize("keyword", sorted(keywords.REFUSED))
def test_a_keyword_that_cannot_be_honoured_is_named_with_its_place(keyword: str) -> None:
    schema = {"properties": {"a": {"items": {keyword: {}}}}}
    with pytest.raises(ValueError, match="cannot be honoured") as caught:
        check_schema(schema)
    assert f"'{keyword}' at #/properties/a/items/{keyword} " in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"typ": "string"}, r"'typ' at #/typ is unknown; did you mean type\?"),
        ({"anyOf": [{}, {"minLenght": 1}]}, "'minLenght' at #/anyOf/1/minLenght is unknown"),
        ({"$defs": {"x": {"if": {}}}}, "'if' at #/\\$defs/x/if"),
        ({"type": "strin"}, "#/type must be one or a list of array"),
        ({"format": "regex"}, "#/format must be one of date"),
        ({"$ref": "http://x/y"}, "#/\\$ref must be a place in the same schema"),
        ({"exclusiveMinimum": True}, "#/exclusiveMinimum must be a number"),
        ({"maxLength": 10**9}, "#/maxLength must be an integer from 0 to 100000"),
        ({"minItems": -1}, "#/minItems must be an integer"),
        ({"pattern": 3}, "#/pattern must be a regular expression"),
        ({"enum": []}, "#/enum must be a non-empty list"),
        ({"required": "a"}, "#/required must be a list of names"),
        ({"anyOf": []}, "#/anyOf must be a non-empty list"),
        ({"items": 3}, "#/items must be an object or a boolean"),
        ({"properties": []}, "#/properties must be an object"),
        ({"allOf": [{}], "unevaluatedProperties": False}, "'unevaluatedProperties' at #/uneval"),
    ],
)
def test_a_wrong_schema_is_told_where(schema: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_schema(schema)


def test_annotations_and_values_that_ask_for_nothing_pass() -> None:
    names = dict.fromkeys(keywords.ANNOTATIONS, "x")
    check_schema({**names, "x-mine": 1, "uniqueItems": False, "nullable": False})
    check_schema({"const": {"not": 1}, "enum": [{"typ": 1}], "properties": {"not": {}}})
    check_schema(True)


def test_schemas_inside_tags_are_checked() -> None:
    for tag in (
        {"structures": [{"begin": "<a>", "schema": {"not": {}}, "end": ""}], "triggers": ["<"]},
        {"format": {"type": "json_schema", "json_schema": {"not": {}}}},
    ):
        with pytest.raises(ValueError, match=r"'not' at structural_tag\."):
            check(to_grammar_spec({"structural_tag": tag}))


def test_size_and_depth_are_limited() -> None:
    with pytest.raises(ValueError, match=f"the limit is {MAX_SOURCE_BYTES}"):
        check(GrammarSpec(kind="regex", source="a" * (MAX_SOURCE_BYTES + 1)))
    with pytest.raises(ValueError, match="nested 65 deep, the limit is 64"):
        check(GrammarSpec(kind="regex", source="(" * 65 + "a" + ")" * 65))
    check(GrammarSpec(kind="choice", source='["' + "(" * 100 + '"]'))
