"""Which keywords of a JSON schema are honoured, as data.

What is not here is refused by name: JSON Schema lets validators ignore what they do not know, but
an output that is said to follow a schema must follow all of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from quire.structured_outputs.name_formats import ANY_UUID, NAME_PATTERNS

# Say something about a value, and nothing about which values there are.
ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "$comment", "$schema"),
        *("deprecated", "readOnly", "writeOnly", "externalDocs", "xml", "discriminator"),
        *("contentEncoding", "contentMediaType", "contentSchema", "$vocabulary"),
        *("propertyOrdering", "strict"),
    }
)
NAMES = frozenset({"$id", "$anchor", "id"})
SCHEMA = frozenset({"items", "additionalProperties", "additionalItems", "unevaluatedProperties"})
SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})  # lists of them
SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
# Each with the sign with which a larger one admits less.
BOUNDS = (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1))
COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)
OTHERS = frozenset({"type", "enum", "const", "$ref", "pattern", "format", "required"})
HONOURED = ANNOTATIONS | NAMES | SCHEMA | SCHEMAS | SCHEMAS_BY_NAME | NUMBERS | COUNTS | OTHERS

FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
        *("uri", *NAME_PATTERNS),
    }
)
# Formats of numbers, as OpenAPI has them, and what they mean as bounds; of others nothing.
MAX_INTEGER = 2**53 - 1  # beyond it JSON's numbers and the compiler's are no longer exact
FORMAT_BOUNDS: dict[str, tuple[int, int]] = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32)},
    **dict.fromkeys(("int", "int64"), (-MAX_INTEGER, MAX_INTEGER)),
    **dict.fromkeys(("uint", "uint64"), (0, MAX_INTEGER)),
}
FORMAT_ANNOTATIONS = frozenset({"float", "double", "decimal", "binary", "byte", "password"})
FORMAT_ANNOTATIONS |= {"path", "file-path", "directory-path", "base64", "base64url", "regex"}
FORMAT_ANNOTATIONS |= {"json-string", "unknown"}  # the last is of the public test suite
TYPES = frozenset({"string", "number", "integer", "boolean", "null", "array", "object"})

# Keywords of the standard that no grammar of ours can follow, and what to write instead.
REFUSED: dict[str, str] = {
    "not": "list what is allowed by enum or anyOf",
    "if": "write the cases as anyOf",
    "then": "write the cases as anyOf",
    "else": "write the cases as anyOf",
    "contains": "describe every item by items",
    "minContains": "describe every item by items",
    "maxContains": "describe every item by items",
    "uniqueItems": "use one boolean property for each item, or drop doubles yourself",
    "propertyNames": "use patternProperties with additionalProperties false",
    "dependentRequired": "write the cases as anyOf",
    "dependentSchemas": "write the cases as anyOf",
    "dependencies": "write the cases as anyOf",
    "unevaluatedItems": "use prefixItems with items false",
    "$dynamicRef": "use $ref",
    "$dynamicAnchor": "use $ref",
    "$recursiveRef": "use $ref",
    "$recursiveAnchor": "use $ref",
    "nullable": 'use type ["...", "null"]',
}

# Ask for expressions, which may need more work than there is time for.
SLOW = frozenset({"pattern", "patternProperties", "propertyNames", "multipleOf"})
# Speak of the same value as what is beside them. The compiler takes each alternative of one with
# each of the other: a few of each, by references to references, are thousands.
IN_PLACE = frozenset({"$ref", "allOf", "anyOf", "oneOf"})
_SAY_NOTHING = ANNOTATIONS | NAMES | {"$defs", "definitions"}

# Day by day, with leap years; no year 0, as Python's calendar has none.
_YEAR = "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP_YEAR = (
    "(?:(?:[1-9][0-9]|0[1-9])(?:0[48]|[2468][048]|[13579][26])"
    "|00(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
)
_DATE = (
    f"(?:{_YEAR}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    "|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    f"|{_LEAP_YEAR}-02-29)"
)
_CLOCK = "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_TIME = rf"{_CLOCK}:[0-5][0-9](?:\.[0-9]{{1,6}})?(?:Z|[+-]{_CLOCK})"
FORMAT_PATTERNS: dict[str, str] = {
    "date": f"^{_DATE}$",
    "time": f"^{_TIME}$",
    "date-time": f"^{_DATE}T{_TIME}$",
    **NAME_PATTERNS,
}
_PATTERNS_OF_NAMES = {**FORMAT_PATTERNS, "uuid": ANY_UUID}

# Characters in all, which patterns of the parts do not bound (RFC 1035, section 2.3.4).
FORMAT_LENGTHS = {"hostname": 253}


def is_annotation(schema: Mapping[str, Any]) -> bool:
    """Whether its ``format`` asks for nothing: formats of texts say nothing of other values."""
    types = schema.get("type", "string")
    return schema["format"] in FORMAT_ANNOTATIONS or "string" not in (
        types if isinstance(types, list) else [types]
    )


def names_pattern(schema: Mapping[str, Any], root: Any) -> str | None:
    """What names of properties must match, where ``propertyNames`` says it as no other word here:
    by a pattern, a format that is one or a list, of an object that names no properties itself."""
    names = names_listed(schema, root)
    if names is not None:
        return f"^(?:{'|'.join(map(re.escape, names))})$"
    match _said_of_names(schema, root):
        case {"pattern": str(pattern), **rest} if not rest:
            return pattern
        case {"format": str(format), **rest} if not rest:
            return _PATTERNS_OF_NAMES.get(format)
    return None


def names_listed(schema: Mapping[str, Any], root: Any) -> list[str] | None:
    """As `names_pattern`, where it is a list."""
    match _said_of_names(schema, root):
        case {"enum": [_, *_] as names, **rest} if not rest and all(
            isinstance(name, str) for name in names
        ):
            return names
        case {"const": str(name), **rest} if not rest:
            return [name]
    return None


def is_reference(schema: Mapping[str, Any]) -> bool:
    """Whether it says nothing else."""
    return schema.keys() - ANNOTATIONS == {"$ref"}


def may_be_slow(schema: Any) -> bool:
    """Whether the compiler may need long for it. It need not be checked yet."""
    return any(not SLOW.isdisjoint(one) or _holds_together(one) for one in all_schemas(schema))


def _holds_together(schema: Mapping[str, Any]) -> bool:
    """Whether a value must follow something else besides another schema."""
    said = [word for word in schema if word not in _SAY_NOTHING and not word.startswith("x-")]
    parts = schema.get("allOf")
    has_parts = isinstance(parts, list) and len(parts) > 1
    return not IN_PLACE.isdisjoint(said) and (has_parts or len(said) > 1)


def _said_of_names(schema: Mapping[str, Any], root: Any) -> Mapping[str, Any] | None:
    names = schema.get("propertyNames")
    if isinstance(names, Mapping) and is_reference(names):
        names = referred(names["$ref"], root)
    others = ("properties", "patternProperties", "unevaluatedProperties")
    if not isinstance(names, Mapping) or any(word in schema for word in others):
        return None
    return {
        word: value
        for word, value in names.items()
        if word not in ANNOTATIONS and (word, value) != ("type", "string")
    }


def referred(reference: str, root: Any) -> Any:
    """What a reference within ``root`` is to; True, of which nothing is known, where it leads
    nowhere."""
    start, *parts = reference.split("/")
    place: Any = root if start == "#" else True
    for part in parts:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping):
            place = place.get(name, True)
        elif isinstance(place, list) and name.isdecimal() and int(name) < len(place):
            place = place[int(name)]
        else:
            return True
    return place


def map_schemas(schema: Mapping[str, Any], change: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The schema with each schema right inside it changed; ``change`` also gets its place."""
    return {name: _map_value(name, value, change) for name, value in schema.items()}


def schemas_in(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas right inside one, each with its place. A keyword whose value is of the wrong
    kind has none."""
    found: list[tuple[str, Any]] = []
    map_schemas(schema, lambda one, place: found.append((place, one)))
    yield from found


def all_schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """It and all inside it that say anything."""
    if isinstance(schema, Mapping):
        yield schema
        for _, one in schemas_in(schema):
            yield from all_schemas(one)


def _map_value(name: str, value: Any, change: Callable[[Any, str], Any]) -> Any:
    if name in SCHEMAS_BY_NAME and isinstance(value, Mapping):
        return {key: change(one, f"{name}/{key}") for key, one in value.items()}
    if name in SCHEMA | SCHEMAS and isinstance(value, list):  # items too, before 2020
        return [change(one, f"{name}/{i}") for i, one in enumerate(value)]
    return change(value, name) if name in SCHEMA else value
