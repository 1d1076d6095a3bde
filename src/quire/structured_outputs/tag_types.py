"""``type`` inside xgrammar's tags, where it is ignored beside listed values, a choice or a
reference: it is dropped if these imply it, and so are listed values of other types. Knows no
grammars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from quire.structured_outputs import schema_walk

_TYPE_OF = {
    **dict.fromkeys(("minLength", "maxLength", "pattern"), "string"),
    **dict.fromkeys(("minItems", "maxItems", "items", "prefixItems"), "array"),
    **dict.fromkeys(("properties", "required", "minProperties", "maxProperties"), "object"),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), "number"),
}
Types = frozenset[str]  # contains integer if it contains number


def with_meant_type(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with the type that its other keywords imply: without it they would have no
    effect."""
    meant = _meant(schema)
    return schema if meant is None or "$ref" in schema else {"type": meant, **schema}


def without_idle_type(schema: dict[str, Any], root: Any, path: str) -> dict[str, Any]:
    """The schema without its ``type``, if listed values, a choice or a reference imply it;
    ``ValueError`` if no listed value is of that type."""
    if "type" not in schema:
        return schema
    types, rest = _named(schema["type"]), {**schema}
    del rest["type"]
    if "const" in schema or "enum" in schema:
        return _of_type(rest, types, path)
    others = _types(rest, root, set()) if "anyOf" in schema or "$ref" in schema else None
    return rest if others is not None and others <= types else schema


def _of_type(schema: dict[str, Any], types: Types, path: str) -> dict[str, Any]:
    """The schema with those of its listed values that are of these types."""
    word = "const" if "const" in schema else "enum"
    kept = [one for one in _listed(schema) if _type_of(one) in types]
    if not kept:
        raise ValueError(
            f"JSON schema: no value of {word!r} at {path}/{word} is of its type, "
            f"{' or '.join(sorted(types))}; list one that is."
        )
    return schema if word == "const" else {**schema, "enum": kept}


def _types(schema: Any, root: Any, seen: set[str]) -> Types | None:
    """The types that it admits, and perhaps more; None for any. References ``seen`` before add
    none."""
    if not isinstance(schema, Mapping):
        return None
    named = _named(schema["type"]) if "type" in schema else None
    if "const" in schema or "enum" in schema:
        listed = frozenset(map(_type_of, _listed(schema)))
        return listed if named is None else listed & named
    if named is not None:
        return named
    if "anyOf" in schema:
        return _any(_types(one, root, seen) for one in schema["anyOf"])
    if "$ref" in schema:
        reference = schema["$ref"]
        if reference in seen:
            return frozenset()
        seen.add(reference)
        return _types(schema_walk.referred(reference, root), root, seen)
    meant = _meant(schema)
    return None if meant is None else _named(meant)


def _any(several: Iterable[Types | None]) -> Types | None:
    found: set[str] = set()
    for types in several:
        if types is None:
            return None
        found |= types
    return frozenset(found)


def _meant(schema: Mapping[str, Any]) -> str | None:
    return next((_TYPE_OF[name] for name in schema if name in _TYPE_OF), None)


def _listed(schema: Mapping[str, Any]) -> list[Any]:
    return [schema["const"]] if "const" in schema else list(schema["enum"])


def _named(types: str | list[str]) -> Types:
    found = frozenset([types] if isinstance(types, str) else types)
    return found | {"integer"} if "number" in found else found


def _type_of(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case Mapping():
            return "object"
    return "null"
