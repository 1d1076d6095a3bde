"""What is refused before anything is compiled, and that it is named with its place."""

from __future__ import annotations

from typing import Any

import pytest

from quire.structured import GrammarSpec, to_grammar_spec
from quire.structured_outputs import keywords
from quire.structured_outputs.check import MAX_OPTIONAL, MAX_SOURCE_BYTES, check, check_schema


@pytest.mark.parametrize("keyword", sorted(keywords.REFUSED))
def test_a_keyword_that_cannot_be_honoured_is_named_with_its_place(keyword: str) -> None:
    schema = {"properties": {"a": {"items": {keyword: {"type": "array"}}}}}
    with pytest.raises(ValueError, match="cannot be honoured") as caught:
        check_schema(schema)
    assert f"'{keyword}' at #/properties/a/items/{keyword} " in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"typ": "string"}, r"'typ' at #/typ is unknown; did you mean type\?"),
        ({"anyOf": [{}, {"minLenght": 1}]}, "'minLenght' at #/anyOf/1/minLenght is unknown"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"if": {}}}}, "'if' at #/\\$defs/x/if"),
        ({"type": "strin"}, "#/type must be one or a list of array"),
        ({"format": "iri"}, "#/format must be one of date"),
        ({"$ref": "http://x/y"}, "#/\\$ref must be a place in the same schema"),
        ({"exclusiveMinimum": True}, "#/exclusiveMinimum must be a number"),
        ({"items": {"minimum": 10**30}}, "#/items/minimum must be within 9007199254740991 of 0"),
        ({"exclusiveMinimum": 2**53 + 1}, "#/exclusiveMinimum must be within"),
        ({"maximum": -1e300}, "#/maximum must be within"),
        ({"multipleOf": -2}, "#/multipleOf must be more than 0"),
        ({"multipleOf": 0}, "#/multipleOf must be more than 0"),
        ({"const": 2**53 + 1}, "#/const must be made of integers that are exact"),
        ({"enum": [{"a": [2**60]}]}, "#/enum must be made of integers that are exact"),
        ({"type": ["string", "integer"], "format": "x"}, "#/format must be one of date, .*ipv6, "),
        ({"format": 3}, "#/format must be a name"),
        ({"minLength": 10**9}, "#/minLength must be an integer from 0 to 100000"),
        ({"maxLength": -1}, "#/maxLength must be an integer that is not negative"),
        ({"maxItems": 1e400}, "#/maxItems must be an integer that is not negative"),
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
    for schema in (
        {"type": "number", "format": "double"},
        {"type": ["integer", "null"], "format": "int64"},
        {"type": "integer", "format": "date"},
        {"type": "string", "format": "password"},
        {"type": "string", "format": "file-path"},
        {"maximum": 2**63 - 1, "minimum": -(2**63), "exclusiveMaximum": 1e300},
    ):
        check_schema(schema)


@pytest.mark.parametrize("format", ["starts_with", "cuid", "jwt"])
def test_a_format_that_nobody_knows_is_a_name_for_the_pattern_beside_it(format: str) -> None:
    check_schema({"type": "string", "format": format, "pattern": "^ab.*"})
    check_schema({"type": "string", "format": format, "allOf": [{"pattern": "^a"}]})
    for schema in ({}, {"allOf": [{"minLength": 1}]}, {"properties": {"pattern": {}}}):
        with pytest.raises(ValueError, match="#/format must be one of"):
            check_schema({**schema, "format": format})


@pytest.mark.parametrize("format", sorted(keywords.FORMATS_NOT_HONOURED))
def test_a_format_of_the_standard_is_honoured_or_refused(format: str) -> None:
    with pytest.raises(ValueError, match="#/format must be one of"):
        check_schema({"type": "string", "format": format, "pattern": "^ab.*"})


def test_schemas_inside_tags_are_checked() -> None:
    for tag in (
        {
            "structures": [{"begin": "<a>", "schema": {"not": {"const": 1}}, "end": ""}],
            "triggers": ["<"],
        },
        {"format": {"type": "json_schema", "json_schema": {"not": {"const": 1}}}},
    ):
        with pytest.raises(ValueError, match=r"'not' at structural_tag\."):
            check(to_grammar_spec({"structural_tag": tag}))


def test_size_and_depth_are_limited() -> None:
    with pytest.raises(ValueError, match=f"the limit is {MAX_SOURCE_BYTES}"):
        check(GrammarSpec(kind="regex", source="a" * (MAX_SOURCE_BYTES + 1)))
    with pytest.raises(ValueError, match="nested 65 deep, the limit is 64"):
        check(GrammarSpec(kind="regex", source="(" * 65 + "a" + ")" * 65))
    check(GrammarSpec(kind="choice", source='["' + "(" * 100 + '"]'))


def nested(depth: int) -> Any:
    schema: Any = {"type": "string"}
    for _ in range(depth):
        schema = {"title": ")]}", "items": schema}
    return schema


def test_the_depth_of_a_schema_is_that_of_its_value() -> None:
    check(to_grammar_spec({"json": nested(63)}))
    for depth in (64, 100, 600):
        with pytest.raises(ValueError, match=f"nested {depth + 1} deep, the limit is 64"):
            check(to_grammar_spec({"json": nested(depth)}))
    check(to_grammar_spec({"json": {"description": "(" * 70}}))
    deep = '{"items":' * 100_000 + "{}" + "}" * 100_000
    with pytest.raises(ValueError, match="recursion"):
        to_grammar_spec({"json": deep})


def test_more_optional_properties_than_can_be_followed_are_refused() -> None:
    names = [f"p{i}" for i in range(MAX_OPTIONAL + 1)]
    schema = {"anyOf": [{"properties": dict.fromkeys(names, True)}]}
    with pytest.raises(ValueError, match=r"#/anyOf/0/properties has 1001 .* is 1000"):
        check_schema(schema)
    schema["anyOf"][0]["required"] = names
    check_schema(schema)


def within(schema: Any) -> dict[str, Any]:
    return {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": schema, "B": {}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/A"},
        {"allOf": [{"type": "object"}, {"$ref": "#/$defs/A"}]},
        {"anyOf": [{"$ref": "#/$defs/A"}]},
        {"oneOf": [{"allOf": [{"$ref": "#/$defs/A/oneOf/0"}]}]},
    ],
)
def test_a_reference_that_leads_only_back_to_itself_is_refused(schema: Any) -> None:
    back = r"the reference '#/\$defs/A.*' within (#|structural_tag\S+) leads only back to itself"
    for constraint in (
        {"json": within(schema)},
        {"structural_tag": {"format": {"type": "json_schema", "json_schema": within(schema)}}},
    ):
        with pytest.raises(ValueError, match=back):
            check(to_grammar_spec(constraint))


def test_references_that_lead_back_from_within_a_value_or_beside_another_are_taken() -> None:
    chain = {f"D{i}": {"$ref": f"#/$defs/D{i + 1}"} for i in range(3000)}
    for schema in (
        {"properties": {"next": {"$ref": "#/$defs/A"}}},
        {"items": {"allOf": [{"$ref": "#/$defs/A"}]}},
        {"anyOf": [{"$ref": "#/$defs/B"}, {"items": {"$ref": "#/$defs/A"}}]},
        {"allOf": [{"$ref": "#/$defs/B"}, {"$ref": "#/$defs/B"}]},
    ):
        check_schema(within(schema))
    check_schema({"$ref": "#/$defs/D0", "$defs": {**chain, "D3000": {"type": "null"}}})


def test_names_of_properties_are_honoured_where_they_are_patterns() -> None:
    for names in (
        {"pattern": "^a"},
        {"enum": ["a", "b"], "title": "E"},
        {"type": "string", "pattern": "a"},
        {"const": "a"},
        {"format": "date"},
        {"format": "uuid"},
        {"minLength": 1, "maxLength": 3},
        {"$ref": "#/$defs/x"},
    ):
        check_schema({"propertyNames": names})
    for schema in (
        {"propertyNames": {"maxLength": 3}, "properties": {"b": {}}},
        {"propertyNames": {"maxLength": "3"}},
        {"propertyNames": {"maxLength": None}},
        {"propertyNames": {"minLength": -1}},
        {"propertyNames": {"type": "number"}},
        {"propertyNames": False},
        {"propertyNames": {"pattern": "a"}, "properties": {"b": {}}},
        {"propertyNames": {"pattern": "a", "maxLength": 3}},
        {"propertyNames": {"format": "email"}},
    ):
        with pytest.raises(ValueError, match="'propertyNames' at #/propertyNames cannot"):
            check_schema(schema)
    with pytest.raises(ValueError, match=r"#/propertyNames/\$ref must be a place"):
        check_schema({"propertyNames": {"$ref": 3}})


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ({"structures": [{"begin": "<a>"}], "triggers": ["<a"]}, "the strings begin and end"),
        ({"structures": 5, "triggers": []}, "the strings begin and end"),
        ({"structures": [{"begin": "<a>", "end": "</a>"}]}, "triggers must be a list of strings"),
    ],
)
def test_an_older_tag_that_lacks_something_is_told_what(tag: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(to_grammar_spec({"structural_tag": tag}))
