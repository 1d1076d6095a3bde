"""Narrowed schemas: what they close, and that they admit nothing that the given ones do not."""

from __future__ import annotations

import ipaddress
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from quire.structured_outputs.name_formats import NAME_PATTERNS
from quire.structured_outputs.narrow import narrowed
from quire.structured_outputs.number_formats import NUMBER_PATTERNS
from tests.unit.structured_outputs.grammars import compiled, follows

OBJECT = {"type": "object", "properties": {"a": {}}}
MOST = 2**53 - 1
CLOSED = {**OBJECT, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (OBJECT, CLOSED),
        ({"properties": {"a": {}}}, CLOSED),
        ({"title": "T", "x-y": 1, "uniqueItems": False, **OBJECT}, CLOSED),
        ({"items": OBJECT}, {"items": CLOSED}),
        ({**OBJECT, "additionalProperties": True}, {**OBJECT, "additionalProperties": True}),
        ({**OBJECT, "required": ["b"]}, {**OBJECT, "required": ["b"]}),
        ({**OBJECT, "required": ["a"], "minProperties": 2},
         {**OBJECT, "required": ["a"], "minProperties": 2}),
        ({**OBJECT, "minProperties": 1}, {**CLOSED, "minProperties": 1, "maxProperties": 1}),
        ({"minLength": 2.0, "maxItems": 3.0}, {"minLength": 2, "maxItems": 3}),
        ({"maxLength": 10**9, "maxItems": 1e300}, {"maxLength": 10**5, "maxItems": 10**5}),
        ({"$ref": "#/$defs/a<b>%20%", "$defs": {}},
         {"$ref": "#/$defs/a%3Cb%3E%20%25", "$defs": {}}),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
         {"type": "number", "minimum": 1e-20, "exclusiveMaximum": 1}),
        ({"exclusiveMinimum": -1, "exclusiveMaximum": 0.0},
         {"exclusiveMinimum": -1, "maximum": -1e-20}),
        ({"minimum": 3, "exclusiveMinimum": 1}, {"minimum": 3}),
        ({"type": ["integer", "null"], "exclusiveMinimum": -1, "maximum": 2.5},
         {"type": ["integer", "null"], "minimum": 0, "maximum": 2}),
        ({"allOf": [OBJECT, OBJECT]}, {"allOf": [OBJECT, OBJECT]}),
        ({"anyOf": [OBJECT, {}]}, {"anyOf": [CLOSED, {}]}),
        ({**OBJECT, "unevaluatedProperties": False}, CLOSED),
        ({"items": [{}], "additionalItems": False}, {"prefixItems": [{}], "items": False}),
        ({"items": {}, "additionalItems": False}, {"items": {}}),
        ({"type": "object", "properties": {"allOf": {"enum": [{"allOf": 1}]}}},
         {"type": "object", "properties": {"allOf": {"enum": [{"allOf": 1}]}},
          "additionalProperties": False}),
        ({"enum": [{"title": "kept"}]}, {"enum": [{"title": "kept"}]}),
        ({"properties": {"title": {}}, "type": "object"},
         {"properties": {"title": {}}, "type": "object", "additionalProperties": False}),
        ({"maximum": 2**63, "exclusiveMinimum": -(2**63)}, {"maximum": MOST, "minimum": -MOST}),
        ({"maximum": 5, "exclusiveMaximum": 1e300}, {"maximum": 5}),
        ({"type": "integer", "format": "uint8", "minimum": 3},
         {"type": "integer", "minimum": 3, "maximum": 255}),
        ({"type": "number", "format": "email"}, {"type": "number"}),
        ({"type": "number", "format": "decimal"}, {"type": "number"}),
        ({"type": ["string", "integer"], "format": "uint8"},
         {"type": ["string", "integer"], "minimum": 0, "maximum": 255,
          "pattern": NUMBER_PATTERNS["uint8"]}),
        ({"type": "string", "format": "int64", "maxLength": 4},
         {"type": "string", "maxLength": 4, "pattern": NUMBER_PATTERNS["int64"]}),
        ({"format": "cuid", "pattern": "^c"}, {"pattern": "^c"}),
        ({"type": "string", "format": "byte"}, {"type": "string"}),
        ({"type": ["string", "null"], "format": "uuid4"},
         {"type": ["string", "null"], "pattern": NAME_PATTERNS["uuid4"]}),
        ({"format": "uuid4", "pattern": "^0"},
         {"pattern": "^0", "allOf": [{"pattern": NAME_PATTERNS["uuid4"]}]}),
        ({"patternProperties": {r"\Aa[\Z]": {"pattern": r"\\A\Z"}}},
         {"patternProperties": {r"^a[\Z]": {"pattern": r"\\A$"}}}),
        (True, True),
    ],
)  # fmt: skip
def test_what_becomes_of_it(schema: Any, wanted: Any) -> None:
    assert narrowed(schema) == wanted


def test_all_objects_are_closed_when_asked() -> None:
    open_one = {"allOf": [{**OBJECT, "additionalProperties": True}], "type": "object"}
    assert narrowed(open_one, closes_objects=True) == {
        "allOf": [CLOSED], "type": "object", "additionalProperties": False,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["date", "time", "date-time"])
def test_patterns_of_days_and_hours_admit_only_those(kind: str) -> None:
    pattern = Draft202012Validator(narrowed({"type": "string", "format": kind}))
    checked = Draft202012Validator(
        {"format": kind}, format_checker=Draft202012Validator.FORMAT_CHECKER
    )
    days = ["2024-02-29", "2023-02-29", "1900-02-29", "2000-02-29", "2024-06-31", "0000-01-01"]
    days += ["0004-02-29", "9999-12-31", "2024-00-10", "2024-13-01", "2024-1-1"]
    times = ["00:00:00Z", "24:00:00Z", "23:59:59.999999+23:59", "12:60:00Z", "12:00:00"]
    values = {"date": days, "time": times}.get(
        kind, [f"{day}T{time}" for day in days for time in times]
    )
    admitted = [value for value in values if pattern.is_valid(value)]
    assert admitted and all(checked.is_valid(value) for value in admitted)


def _pet(kind: str, **more: object) -> dict[str, object]:
    return {"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"], **more}


def test_alternatives_that_a_property_tells_apart_are_any_of_them() -> None:
    references = [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog", "description": "a dog"}]
    schema = {
        "properties": {"pets": {"type": "array", "items": {"oneOf": references}}},
        "$defs": {"cat": _pet("cat"), "dog": _pet("dog")},
    }
    items = narrowed(schema)["properties"]["pets"]["items"]
    assert [one["$ref"] for one in items["anyOf"]] == ["#/$defs/cat", "#/$defs/dog"]
    assert "oneOf" not in items
    enums = {"type": "object", "properties": {"kind": {"enum": ["cat", "fox"]}}}
    for other, is_any in (
        (_pet("dog"), True),
        (_pet("cat"), False),
        (_pet("dog", required=[]), True),
        (_pet("dog", type=["object", "string"]), True),
        ({**enums, "required": ["kind"]}, False),
        ({"$ref": "https://example.org/dog"}, False),
        ({"$ref": "#"}, False),
        (True, False),
    ):
        schema = {"oneOf": [_pet("cat"), other]}
        if is_any:
            assert "anyOf" in narrowed(schema), other
        else:
            with pytest.raises(ValueError, match="two alternatives of #/oneOf may hold together"):
                narrowed(schema)


def test_alternatives_that_only_narrowing_puts_apart_are_refused() -> None:
    """A text follows the first one too, which says nothing of texts."""
    with pytest.raises(ValueError, match="two alternatives of #/items/oneOf may hold together"):
        narrowed({"items": {"oneOf": [{"properties": {"a": {}}}, {"type": "string"}]}})
    closed = [{"type": "object", "properties": {name: {}}, "required": [name]} for name in "ab"]
    assert "anyOf" in narrowed({"oneOf": closed})  # neither has what the other one requires
    with pytest.raises(ValueError, match="may hold together"):
        narrowed({"oneOf": [{**one, "additionalProperties": True} for one in closed]})


def test_alternatives_are_told_apart_by_what_is_around_them() -> None:
    kinds = {"oneOf": [_pet("cat", required=[]), {**_pet("dog"), "required": []}]}
    for around in (
        {"required": ["kind"], **kinds},
        {"allOf": [{"required": ["kind"]}, kinds]},
        {"required": ["kind"], "anyOf": [{"type": "null"}, kinds]},
    ):
        narrowed(around)
    apart = {"oneOf": [{"properties": {"a": {"const": i}}} for i in range(2)]}
    narrowed({"type": "object", "required": ["a"], **apart})
    with pytest.raises(ValueError, match="#/properties/a/oneOf"):
        narrowed({"type": "object", "required": ["a"], "properties": {"a": apart}})


def _open_pet(kind: str, **more: object) -> dict[str, object]:
    """As pydantic writes it where the kind has a default."""
    return {"type": "object", "properties": {"kind": {"const": kind}, **more}}


def test_a_property_that_tells_alternatives_apart_becomes_required() -> None:
    pets = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]}
    known = {"kind": {"enum": ["fox", "wolf"]}}
    wild = {"oneOf": [_open_pet("cat"), {"type": "object", "properties": known}]}
    definitions = {"cat": _open_pet("cat", kittens={"items": pets}), "dog": _open_pet("dog")}
    schema = {"properties": {"pet": pets, "wild": wild}, "$defs": definitions, "type": "object"}
    out = narrowed(schema)
    assert out["properties"]["pet"] == {"anyOf": pets["oneOf"]}
    assert out["$defs"]["cat"]["properties"]["kittens"] == {"items": {"anyOf": pets["oneOf"]}}
    assert all(one["required"] == ["kind"] for one in out["$defs"].values())
    assert all(one["required"] == ["kind"] for one in out["properties"]["wild"]["anyOf"])
    validator = Draft202012Validator(schema)
    admits = Draft202012Validator(out)
    for value in ({"kind": "cat"}, {"kind": "dog"}, {"kind": "cat", "kittens": [{}]}, {}, {"x": 1}):
        assert not admits.is_valid({"pet": value}) or validator.is_valid({"pet": value})
    assert admits.is_valid({"pet": {"kind": "dog"}, "wild": {"kind": "wolf"}})


def test_alternatives_whose_values_overlap_or_are_no_objects_are_still_refused() -> None:
    for other in (
        _open_pet("cat"),
        {"properties": {"kind": {"const": "dog"}}},
        {"type": "object", "properties": {"sort": {"const": "dog"}}},
        {"type": "object", "properties": {"kind": {"type": "string"}}},
        {"$ref": "#/x-elsewhere"},
    ):
        with pytest.raises(ValueError, match="may hold together"):
            narrowed({"oneOf": [_open_pet("cat"), other], "x-elsewhere": _open_pet("dog")})


def test_references_lead_anywhere_in_the_schema() -> None:
    tool = {"$defs": {"a/b": _pet("cat"), "dog": _pet("dog")}}
    start = "#/properties/tool"
    references = [{"$ref": f"{start}/$defs/a~1b"}, {"$ref": f"{start}/$defs/dog"}]
    tool["oneOf"] = references
    assert "anyOf" in narrowed({"properties": {"tool": tool}})["properties"]["tool"]
    first = {"prefixItems": [{"const": 1}], "oneOf": [{"$ref": "#/prefixItems/0"}, {"const": 2}]}
    assert "oneOf" not in narrowed(first)
    for nowhere in ("#/prefixItems/1", "#/prefixItems/x", "#/oneOf/0/const/0", "#cat", "#/none"):
        with pytest.raises(ValueError, match="may hold together"):
            narrowed({**first, "oneOf": [{"$ref": nowhere}, {"const": 2}]})


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        *(
            (one, one)
            for one in ("Record<string,number>", "Page«U»", "A[int]", "A B", "地址", "a%b")
        ),
        *(("p q", "p%20q"), ("a/b~c", "a~1b~0c"), ("é", "%C3%A9"), ('A#B"\\', 'A#B"\\')),
    ],
)
def test_definitions_have_any_names(name: str, reference: str) -> None:
    there = {"$ref": f"#/$defs/{reference}"}
    definitions = {name: _pet("cat"), "dog": _pet("dog")}
    either = {"oneOf": [there, {"$ref": "#/$defs/dog"}]}
    both = {"allOf": [there, {"properties": {"age": {"type": "integer"}}, "required": ["age"]}]}
    properties = {"either": either, "both": both}
    grammar = compiled(
        json={"properties": properties, "required": [*properties], "$defs": definitions}
    )
    assert follows(grammar, '{"either":{"kind":"cat"},"both":{"kind":"cat","age":1}}')
    assert not follows(grammar, '{"either":{"kind":"cat"},"both":{"kind":"dog","age":1}}')
    assert not follows(grammar, '{"either":{"kind":"fox"},"both":{"kind":"cat","age":1}}')


@pytest.mark.parametrize(
    "inner",
    [
        {"$ref": "#", "type": "object"},
        {"allOf": [{"$ref": "#"}], "type": "object", "title": "n"},
        {"$ref": "#", "type": ["object", "null"]},
    ],
)
def test_a_schema_within_itself_may_say_its_type_again(inner: dict[str, Any]) -> None:
    grammar = compiled(json={"properties": {"n": inner}})
    assert follows(grammar, '{"n":{"n":{}}}')
    assert not follows(grammar, '{"n":null}') and not follows(grammar, '{"n":{"n":1}}')


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("ipvanyaddress", ipaddress.ip_address),
        ("ipv4network", ipaddress.IPv4Network),
        ("ipv6network", ipaddress.IPv6Network),
        ("ipvanynetwork", ipaddress.ip_network),
        ("ipv4interface", ipaddress.IPv4Interface),
        ("ipv6interface", ipaddress.IPv6Interface),
        ("ipvanyinterface", ipaddress.ip_interface),
    ],
)
def test_patterns_of_addresses_admit_only_those(kind: str, read: Callable[[str], object]) -> None:
    addresses = ["1.2.3.4", "10.0.0.0", "172.16.0.0", "1.2.3.256", "01.2.3.4", "0.0.0.0", "1.2.3"]
    addresses += ["::", "::1", "1::", "2001:db8::", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1:2::3"]
    addresses += ["::2:3:4:5:6:7:8", "1:2:3:4::5:6:7:8:9", "1::2::3", "12345::", "1:2:3:4:5:6:7"]
    texts = addresses + [f"{one}/{length}" for one in addresses for length in (*range(130), "08")]
    admitted = [one for one in texts if re.search(NAME_PATTERNS[kind], one)]
    assert len(admitted) >= 5
    for one in admitted:
        read(one)


def test_a_uuid_has_its_version() -> None:
    for version in (1, 3, 4, 5):
        text = str(uuid.UUID(int=2**127 + 5, version=version))
        kinds = [kind for kind in NAME_PATTERNS if re.search(NAME_PATTERNS[kind], text)]
        assert kinds == [f"uuid{version}"]


def test_names_of_properties_may_be_said_elsewhere_or_by_a_format() -> None:
    schema = {"additionalProperties": {"type": "integer"}, "$defs": {"E": {"title": "E"}}}
    schema["$defs"]["E"] |= {"type": "string", "enum": ["a", "b.c"]}
    for names, good, bad in (
        ({"$ref": "#/$defs/E"}, ["a", "b.c"], ["b", "bxc"]),
        ({"format": "date"}, ["2024-02-29"], ["2023-02-29", "a"]),
        ({"format": "uuid"}, ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"], ["a"]),
        ({"const": "a"}, ["a"], ["aa"]),
        ({"format": "uint8"}, ["255", "0"], ["256", "01"]),
        ({"minLength": 2, "maxLength": 3.0, "type": "string"}, ["ab", "a\nb"], ["a", "abcd"]),
    ):
        admits = Draft202012Validator(narrowed({**schema, "propertyNames": names}))
        assert [name for name in good + bad if admits.is_valid({name: 1})] == good
        assert not admits.is_valid({good[0]: "x"})
    for nowhere in ("#/$defs/none", "#/additionalProperties"):
        with pytest.raises(ValueError, match="'propertyNames' at #/propertyNames cannot be"):
            narrowed({**schema, "propertyNames": {"$ref": nowhere}})


def test_the_property_that_a_discriminator_names_is_required_though_others_tell_apart() -> None:
    def pet(kind: str, sound: str) -> dict[str, Any]:
        properties = {"kind": {"const": kind, "default": kind}, sound: {"type": "integer"}}
        return {**OBJECT, "properties": properties, "required": [sound]}

    pets = {"oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}]}
    named = {"discriminator": {"propertyName": "kind"}}
    more = {"additionalProperties": False}
    definitions = {"cat": {**pet("cat", "meows"), **more}, "dog": {**pet("dog", "barks"), **more}}
    for around in ({}, named):
        out = narrowed({"items": {**pets, **around}, "$defs": definitions})
        assert [one["required"] for one in out["$defs"].values()] == [
            ["meows", "kind"], ["barks", "kind"],
        ]  # fmt: skip
    fox = {**pet("fox", "yelps"), "additionalProperties": False}
    nested = {**named, "anyOf": [pets, {"allOf": [{"$ref": "#/$defs/fox"}]}]}
    out = narrowed({"items": nested, "$defs": {**definitions, "fox": fox}})
    assert out["$defs"]["dog"]["required"] == ["barks", "kind"]
    for unlike in ({"propertyName": 1}, {"propertyName": "sort"}, "kind"):
        one = narrowed({"anyOf": [pet("cat", "meows")], "discriminator": unlike})["anyOf"][0]
        assert one["required"] == ["meows"]


def test_one_part_beside_a_description_is_put_in_its_place() -> None:
    unit = {"allOf": [{"$ref": "#/$defs/U"}], "description": "the unit", "default": "c"}
    schema = {**OBJECT, "properties": {"unit": unit}, "$defs": {"U": {"enum": ["c", "f"]}}}
    out = narrowed(schema)
    assert out["properties"]["unit"] == {"$ref": "#/$defs/U"}
    assert out["additionalProperties"] is False
    into = {**schema["properties"], "again": {"$ref": "#/properties/unit/allOf/0"}}
    assert "allOf" in narrowed({**schema, "properties": into})["properties"]["unit"]
    beside = {**unit, "minLength": 1}
    assert "allOf" in narrowed({**schema, "properties": {"unit": beside}})["properties"]["unit"]


def test_only_what_describes_an_object_together_with_others_stays_open() -> None:
    def described(**properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties}

    base = described(a={}, both=described(x={}), inner=described(y={}))
    whole = {"allOf": [{"$ref": "#/$defs/base"}, described(b={}, both=described(z={}))]}
    beside = {**described(c={}), "anyOf": [described(d={}), {"required": ["c"]}]}
    far, other = {"$ref": "#/$defs/far"}, {"allOf": [described(e={})]}
    schema = described(whole=whole, beside=beside, other=other, far=far)
    out = narrowed({**schema, "$defs": {"base": base, "far": described(g={})}})
    assert out["additionalProperties"] is False
    properties, base = out["properties"], out["$defs"]["base"]
    second = properties["whole"]["allOf"][1]
    for is_open in (base, base["properties"]["both"], second, second["properties"]["both"],
                    properties["beside"], properties["beside"]["anyOf"][0]):  # fmt: skip
        assert "additionalProperties" not in is_open
    for is_closed in (base["properties"]["inner"], out["$defs"]["far"],
                      properties["other"]["allOf"][0]):  # fmt: skip
        assert is_closed["additionalProperties"] is False


def test_objects_whose_names_follow_patterns_have_no_others() -> None:
    names = {"type": "object", "patternProperties": {"^[a-z]+$": {"type": "integer"}}}
    for more, is_closed in (
        ({}, True),
        ({"type": ["object", "null"]}, True),
        ({"properties": {"A": {}}, "required": ["A", "b"]}, True),
        ({"minProperties": 1}, True),
        ({"required": ["B"]}, False),
        ({"required": ["b"], "patternProperties": {"[": {}}}, False),
    ):
        assert (narrowed({**names, **more}).get("additionalProperties") is False) is is_closed, more
    said = {**names, "additionalProperties": {"type": "string"}}
    assert narrowed(said) == said
    assert narrowed(said, closes_objects=True)["additionalProperties"] is False
