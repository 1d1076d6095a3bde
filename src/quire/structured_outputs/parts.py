"""Finds objects that several schemas describe together, by ``allOf``, or by properties beside a
reference or a choice: each schema must leave room for the others. Knows no grammars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from quire.structured_outputs import keywords, schema_walk

_IN_PLACE = ("allOf", "anyOf", "oneOf")  # they apply to the same value, as references do
_DESCRIBING = ("properties", "$ref", *_IN_PLACE)
_BESIDE = frozenset({"allOf", "$defs", "definitions"}) | keywords.ANNOTATIONS


def open_parts(root: Any) -> frozenset[int]:
    """The schemas, by identity, that describe an object together with others."""
    found: set[int] = set()
    seen: set[frozenset[int]] = set()
    waiting = [[one] for one in schema_walk.all_schemas(root) if _is_combined(one)]
    while waiting:
        parts = in_place(waiting.pop(), root)
        key = frozenset(map(id, parts))
        if key not in seen:
            seen.add(key)
            found |= key
            waiting += _inside(parts)
    return frozenset(found)


def only_part(schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The only part of its ``allOf``, a reference, if the schema says nothing else: so older
    schemas add a description to a reference. None otherwise."""
    parts = schema.get("allOf", ())
    if len(parts) != 1 or not isinstance(parts[0], Mapping):
        return None
    is_alone = all(name in _BESIDE or name.startswith("x-") for name in schema)
    return parts[0] if is_alone and keywords.is_reference(parts[0]) else None


def has_reference_into_parts(root: Any) -> bool:
    """Whether a reference leads to where a part of ``allOf`` stands."""
    return any("/allOf/" in str(one.get("$ref", "")) for one in schema_walk.all_schemas(root))


def in_place(schemas: Sequence[Any], root: Any) -> list[Mapping[str, Any]]:
    """The schemas, and all others that apply to the same value."""
    waiting = list(schemas)
    found: dict[int, Mapping[str, Any]] = {}
    while waiting:
        one = waiting.pop()
        if not isinstance(one, Mapping) or id(one) in found:
            continue
        found[id(one)] = one
        waiting += [inner for word in _IN_PLACE for inner in one.get(word, ())]
        if "$ref" in one:
            waiting.append(schema_walk.referred(one["$ref"], root))
    return list(found.values())


def _is_combined(schema: Mapping[str, Any]) -> bool:
    if sum(word in schema for word in _DESCRIBING) > 1:
        return True
    if len(schema.get("allOf", ())) < 2:
        others = schema.keys() - _BESIDE - {"type"}
        return "allOf" in schema and any(not name.startswith("x-") for name in others)
    return True


def _inside(parts: Sequence[Mapping[str, Any]]) -> Iterator[list[Any]]:
    """Groups of schemas by which several parts describe the same inner value."""
    by_place: dict[str, list[Any]] = {}
    for part in parts:
        for place, one in schema_walk.schemas_in(part):
            if place.partition("/")[0] not in (*_IN_PLACE, "$defs", "definitions"):
                by_place.setdefault(place, []).append(one)
    yield from (several for several in by_place.values() if len(several) > 1)
