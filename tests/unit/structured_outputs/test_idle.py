"""What asks for nothing is left out, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from pytest import MonkeyPatch

from quire.structured_outputs import schema_walk
from quire.structured_outputs.check import check_schema
from quire.structured_outputs.idle import without_idle
from tests.unit.structured_outputs.grammars import compiled, follows

REFUSED = {"not": {"type": "string"}}


@pytest.mark.parametrize(
    "said",
    [
        {"propertyNames": {"type": "string"}},
        {"propertyNames": {"type": ["null", "string"], "description": "a key", "x-y": 1}},
        {"propertyNames": {}},
        {"propertyNames": True},
        {"not": False},
        {"nullable": False},
        {"nullable": True, "type": ["object", "null"]},
        {"uniqueItems": False},
        {"uniqueItems": True, "maxItems": 1},
        {"uniqueItems": True, "maxItems": 0},
        {"unevaluatedItems": True},
        {"dependentRequired": {}},
        {"dependentRequired": {"a": []}},
        {"dependentSchemas": {}},
        {"dependencies": {}},
        {"$recursiveAnchor": False},
    ],
)
def test_what_asks_for_nothing_is_left_out_wherever_it_is(said: dict[str, Any]) -> None:
    kept = {word: one for word, one in said.items() if word in ("type", "maxItems")}
    for around in (lambda one: one, lambda one: {"items": [{"properties": {"a": one}}]}):
        check_schema(around(said))
        assert without_idle(around(said)) == around(kept)


@pytest.mark.parametrize(
    "said",
    [
        {"propertyNames": {"type": "number"}},
        {"propertyNames": False},
        {"propertyNames": {"$ref": 3}},
        {"not": {"type": "string"}},
        {"not": 3},
        {"nullable": True},
        {"nullable": True, "enum": ["a"]},
        {"nullable": True, "type": "string"},
        {"uniqueItems": True},
        {"uniqueItems": True, "maxItems": 2},
        {"uniqueItems": "x", "maxItems": 1},
        {"unevaluatedItems": False},
        {"dependentRequired": {"a": ["b"]}},
        {"dependentSchemas": {"a": False}},
        {"dependencies": {"a": False}},
        {"dependencies": 3},
    ],
)
def test_what_asks_for_something_stays(said: dict[str, Any]) -> None:
    assert without_idle(said) == said
    with pytest.raises(ValueError, match="JSON schema: "):
        check_schema(said)


def test_names_and_values_are_no_keywords() -> None:
    schema = {"properties": {"not": True, "propertyNames": {}}, "const": {"not": {}}, "default": {}}
    assert without_idle(schema) == schema


def test_a_map_as_zod_writes_it_has_any_names() -> None:
    values = {"type": "object", "additionalProperties": {"type": "integer"}}
    for names in ({"type": "string"}, {"$ref": "#/$defs/Name"}):
        schema = {**values, "propertyNames": names, "$defs": {"Name": {"type": "string"}}}
        grammar = compiled(json=schema)
        for text in ("{}", '{"a":1,"b c":2}'):
            assert follows(grammar, text)
        assert not follows(grammar, '{"a":"x"}')


def test_what_never_comes_never_comes() -> None:
    never = {"not": {}, "description": "for others"}
    optional = {"type": "object", "properties": {"a": never, "b": {"type": "integer"}}}
    grammar = compiled(json=optional)
    assert follows(grammar, '{"b":1}') and follows(grammar, "{}")
    assert not follows(grammar, '{"a":1}') and not follows(grammar, '{"a":null}')
    for word in ("anyOf", "oneOf"):
        one = compiled(json={word: [never, {"const": 1}]})
        assert follows(one, "1") and not follows(one, "2")
    for schema, place in (({**optional, "required": ["a"]}, "#/properties/a: "), (never, "#: ")):
        with pytest.raises(ValueError, match=place + "Unsatisfiable schema"):
            compiled(json=schema)
    tag = {"structures": [{"begin": "<f>", "schema": optional, "end": ";"}], "triggers": ["<f"]}
    with pytest.raises(ValueError, match="/properties/a admits no value, which cannot be"):
        compiled(structural_tag=tag)


def test_definitions_that_nothing_refers_to_need_not_be_honoured() -> None:
    for word in ("$defs", "definitions"):
        schema = {"$ref": f"#/{word}/a~1b", word: {"a/b": {"const": 1}, "unused": REFUSED}}
        check_schema(schema)
        grammar = compiled(json=schema)
        assert follows(grammar, "1") and not follows(grammar, "2")
        unused = {"loop": {"$ref": f"#/{word}/loop", **REFUSED}, "typ": {"typ": 3}}
        assert without_idle({"type": "null", word: unused}) == {"type": "null", word: {}}


def test_what_several_references_lead_to_is_looked_at_once(monkeypatch: MonkeyPatch) -> None:
    looked_at: list[int] = []
    schemas_in = schema_walk.schemas_in

    def counted(schema: Any) -> Any:
        looked_at.append(id(schema))
        return schemas_in(schema)

    monkeypatch.setattr(schema_walk, "schemas_in", counted)
    inner: dict[str, Any] = {"anyOf": [{}, {}]}
    for _ in range(20):
        inner = {"items": inner}
    references = [{"$ref": "#" + "/items" * i} for i in range(1, 20)]
    without_idle({**inner, "anyOf": references, "$defs": {}})
    assert len(looked_at) == len(set(looked_at)) > 20


def test_a_type_that_a_reference_has_is_left_out() -> None:
    root = {"$defs": {"whole": {"type": "integer"}, "any": {"title": "any"}}}
    whole, anything = {"$ref": "#/$defs/whole"}, {"$ref": "#/$defs/any"}
    for said, kept in (
        ({**whole, "type": "number"}, whole),
        ({**whole, "type": ["integer", "null"]}, whole),
        ({"allOf": [whole], "type": "integer"}, {"allOf": [whole]}),
        ({**whole, "type": "string"}, None),
        ({**whole, "type": "integr"}, None),
        ({**anything, "type": "string"}, None),
        ({"$ref": 3, "type": "string"}, None),
        ({"allOf": [whole, {}], "type": "integer"}, None),
    ):
        schema = {**root, "properties": {"a": said, "b": whole, "c": anything}}
        assert without_idle(schema)["properties"]["a"] == (said if kept is None else kept)


@pytest.mark.parametrize(("index", "leads"), [("1", True), ("01", False), ("١", False)])
def test_an_index_in_a_reference_has_one_form(index: str, leads: bool) -> None:
    found = schema_walk.referred(f"#/anyOf/{index}", {"anyOf": [{}, {"const": 1}]})
    assert found == ({"const": 1} if leads else True)


@pytest.mark.parametrize(
    "user",
    [
        {"$ref": "#/$defs/used"},
        {"$ref": "#/$defs/used/items"},
        {"properties": {"definitions": {"$ref": "#/$defs/used"}}},
        {"propertyNames": {"$ref": "#/$defs/used"}},
        {"items": {"anyOf": [{"$ref": "#/$defs/through"}, True]}},
        {"$ref": "#anchor"},
        {"$ref": "#/$defs/use%64"},
    ],
)
def test_what_a_reference_leads_to_is_honoured_or_refused(user: dict[str, Any]) -> None:
    used = {"$anchor": "anchor", "items": {}, **REFUSED}
    through = {"items": {"$ref": "#/$defs/used"}}
    schema = {**user, "$defs": {"used": used, "through": through, "unused": REFUSED}}
    assert without_idle(schema)["$defs"]["used"] == used
    with pytest.raises(ValueError, match="cannot be honoured"):
        check_schema(schema)
