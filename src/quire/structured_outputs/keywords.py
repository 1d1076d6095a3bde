"""Which keywords of a JSON schema are honoured, and what those of formats, types and names say.

What is not here is refused by name: JSON Schema lets validators ignore what they do not know, but
an output that is said to follow a schema must follow all of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from quire.structured_outputs.name_formats import ANY_UUID, NAME_PATTERNS
from quire.structured_outputs.number_formats import NUMBER_PATTERNS
from quire.structured_outputs.schema_walk import (
    SCHEMA,
    SCHEMAS,
    SCHEMAS_BY_NAME,
    all_schemas,
    referred,
)

# Describe a value without restricting it.
ANNOTATIONS = frozenset(
    {
        *("title", "description", "default", "examples", "example", "$comment", "$schema"),
        *("deprecated", "readOnly", "writeOnly", "externalDocs", "xml", "discriminator"),
        *("contentEncoding", "contentMediaType", "contentSchema", "$vocabulary"),
        *("propertyOrdering", "strict"),
    }
)
NAMES = frozenset({"$id", "$anchor", "id"})
NUMBERS = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})
# Each with the sign by which a larger bound admits less.
BOUNDS = (("minimum", "exclusiveMinimum", 1), ("maximum", "exclusiveMaximum", -1))
COUNTS = frozenset(
    {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)
MAX_COUNT = 100_000  # of characters, items or properties: what a grammar counts
_LENGTHS = frozenset({"minLength", "maxLength"})
OTHERS = frozenset({"type", "enum", "const", "$ref", "pattern", "format", "required"})
HONOURED = ANNOTATIONS | NAMES | SCHEMA | SCHEMAS | SCHEMAS_BY_NAME | NUMBERS | COUNTS | OTHERS

FORMATS = frozenset(
    {
        *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
        *("uri", *NAME_PATTERNS, *NUMBER_PATTERNS),
    }
)
# Formats of the standard and its drafts that are not supported.
FORMATS_NOT_HONOURED = frozenset(
    {
        *("iri", "iri-reference", "uri-reference", "uri-template", "idn-email", "idn-hostname"),
        *("json-pointer", "relative-json-pointer", "color", "phone", "host-name", "ip-address"),
        *("style", "utc-millisec"),
    }
)
# OpenAPI's formats of numbers as bounds; other formats do not restrict numbers.
MAX_INTEGER = 2**53 - 1  # beyond it JSON's numbers and the compiler's are no longer exact
FORMAT_BOUNDS: dict[str, tuple[int, int]] = {
    **{f"int{bits}": (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32)},
    **{f"uint{bits}": (0, 2**bits - 1) for bits in (8, 16, 32)},
    **dict.fromkeys(("int", "int64"), (-MAX_INTEGER, MAX_INTEGER)),
    **dict.fromkeys(("uint", "uint64"), (0, MAX_INTEGER)),
}
FORMAT_ANNOTATIONS = frozenset(
    {
        *("binary", "byte", "password", "path", "file-path", "directory-path", "base64"),
        *("base64url", "regex", "json-string", "unknown"),  # the last is of the public test suite
    }
)
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
    "uniqueItems": "use one boolean property for each item, or remove duplicates yourself",
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

# Compiled to regular expressions, which may take too long.
SLOW = frozenset({"pattern", "patternProperties", "propertyNames", "multipleOf"})
# Apply to the same value as their siblings. The compiler combines each alternative of one with each
# of the other: a few of each, by references to references, are thousands.
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
    **NUMBER_PATTERNS,
}
_PATTERNS_OF_NAMES = {**FORMAT_PATTERNS, "uuid": ANY_UUID}

# Characters in all, which patterns of the parts do not bound (RFC 1035, section 2.3.4).
FORMAT_LENGTHS = {"hostname": 253}


def types_of(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that it names; all if it names none. It need not be checked yet."""
    types = schema.get("type", TYPES)
    names = types if isinstance(types, (list, frozenset)) else [types]
    return frozenset(one for one in names if isinstance(one, str))


def is_annotation(schema: Mapping[str, Any]) -> bool:
    """Whether its ``format`` restricts no text: string formats do not apply to other values, an
    unknown one is a name for the pattern beside it, and one of numbers leaves it to a pattern or a
    list how numbers are written, and applies to texts only where ``type`` names them."""
    format = schema["format"]
    if format in FORMAT_ANNOTATIONS or "string" not in types_of(schema):
        return True
    if format in NUMBER_PATTERNS:
        return "type" not in schema or "enum" in schema or "const" in schema or _has_pattern(schema)
    return format not in FORMATS | FORMATS_NOT_HONOURED and _has_pattern(schema)


def _has_pattern(schema: Mapping[str, Any]) -> bool:
    parts = schema.get("allOf")
    return any(
        isinstance(one, Mapping) and "pattern" in one
        for one in (schema, *(parts if isinstance(parts, list) else ()))
    )


def says_nothing(schema: Any) -> bool:
    """Whether every value follows it, as far as its keywords tell."""
    return schema is True or (isinstance(schema, Mapping) and not _words(schema))


def _words(schema: Mapping[str, Any]) -> set[str]:
    return {word for word in schema if word not in ANNOTATIONS and not word.startswith("x-")}


def names_pattern(schema: Mapping[str, Any], root: Any) -> str | None:
    """The pattern that ``propertyNames`` stands for: a pattern, a format that is one, lengths or a
    list. None for anything else, or if the object names properties itself."""
    names = names_listed(schema, root)
    if names is not None:
        return f"^(?:{'|'.join(map(re.escape, names))})$"
    said = _said_of_names(schema, root)
    if (lengths := _lengths(said)) is not None:
        least, most = lengths
        return rf"^[\s\S]{{{least},{'' if most is None else most}}}$"
    match said:
        case {"pattern": str(pattern), **rest} if not rest:
            return pattern
        case {"format": str(format), **rest} if not rest:
            return _PATTERNS_OF_NAMES.get(format)
    return None


def _lengths(said: Mapping[str, Any] | None) -> tuple[int, int | None] | None:
    """The least length and the most, if any, of names; None if anything but counts is said."""
    if not said or not said.keys() <= _LENGTHS or not all(map(_is_count, said.values())):
        return None
    most = said.get("maxLength")
    return int(said.get("minLength", 0)), None if most is None else int(most)


def _is_count(value: Any) -> bool:
    return type(value) in (int, float) and value >= 0 and value % 1 == 0


def names_listed(schema: Mapping[str, Any], root: Any) -> list[str] | None:
    """The only names that ``propertyNames`` admits, by a list, or by lengths that leave one or
    none; None if it is neither, as in `names_pattern`."""
    said = _said_of_names(schema, root)
    match _lengths(said):
        case (least, int(most)) if most < least:
            return []
        case (0, 0):
            return [""]
    match said:
        case {"enum": [_, *_] as names, **rest} if not rest and all(
            isinstance(name, str) for name in names
        ):
            return names
        case {"const": str(name), **rest} if not rest:
            return [name]
    return None


def admits_all_names(schema: Mapping[str, Any], root: Any) -> bool:
    """Whether its ``propertyNames`` admits every name."""
    names = _of_names(schema, root)
    return names is True or (
        isinstance(names, Mapping)
        and _words(names) <= {"type"}
        and ("type" not in names or "string" in types_of(names))
    )


def is_reference(schema: Mapping[str, Any]) -> bool:
    """Whether the schema is nothing but a reference, annotations aside."""
    return schema.keys() - ANNOTATIONS == {"$ref"}


def may_be_slow(schema: Any) -> bool:
    """Whether the schema, which need not be checked yet, may take long to compile."""
    return any(not SLOW.isdisjoint(one) or _holds_together(one) for one in all_schemas(schema))


def _holds_together(schema: Mapping[str, Any]) -> bool:
    """Whether several schemas apply to the same value."""
    said = [word for word in schema if word not in _SAY_NOTHING and not word.startswith("x-")]
    parts = schema.get("allOf")
    has_parts = isinstance(parts, list) and len(parts) > 1
    return not IN_PLACE.isdisjoint(said) and (has_parts or len(said) > 1)


def _said_of_names(schema: Mapping[str, Any], root: Any) -> Mapping[str, Any] | None:
    names = _of_names(schema, root)
    others = ("properties", "patternProperties", "unevaluatedProperties")
    if not isinstance(names, Mapping) or any(word in schema for word in others):
        return None
    said = {word: names[word] for word in _words(names)}
    if said.get("type") == "string":
        del said["type"]
    return said


def _of_names(schema: Mapping[str, Any], root: Any) -> Any:
    """Its ``propertyNames``, a reference resolved; None if there is none, or the reference leads
    nowhere."""
    names = schema.get("propertyNames")
    if isinstance(names, Mapping) and is_reference(names):
        found = referred(names["$ref"], root) if isinstance(names["$ref"], str) else True
        return None if found is True else found
    return names
