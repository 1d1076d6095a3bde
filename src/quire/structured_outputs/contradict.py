"""Proves that no value follows several JSON schemas at once; without a proof nothing is known.

So alternatives of ``oneOf`` that exclude each other are found. It looks at types, listed values,
bounds, lengths, and required properties. Knows no grammars.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from quire.structured_outputs import keywords, schema_walk

MAX_STEPS = 50_000  # half a second
LISTED_IN_STEP = 4  # listed values and required names per step
MAX_DEPTH = 16  # of properties in properties
MAX_PARTS = 64  # of one value, by allOf and references
_ALL_TYPES = frozenset(keywords.TYPES)  # number stands for those that are no integers too


class Prover:
    """Proofs for one schema, in `MAX_STEPS` steps for all of them; beyond those nothing is
    proved."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._left = MAX_STEPS
        self._none: dict[str, Callable[[Sequence[Mapping[str, Any]], int], bool]] = {
            "integer": lambda parts, depth: _no_number(parts, is_whole=True),
            "number": lambda parts, depth: _no_number(parts, is_whole=False),
            "string": lambda parts, depth: _no_count(parts, "minLength", "maxLength"),
            "array": lambda parts, depth: _no_count(parts, "minItems", "maxItems"),
            "object": self._no_object,
        }

    def exclude_each_other(
        self, narrowed: Sequence[Any], given: Sequence[Any], around: Sequence[Any]
    ) -> bool:
        """Whether no value that one alternative admits as ``narrowed`` follows another as
        ``given``. The schemas ``around`` apply to all of them."""
        return _told_apart_by_values(given, self._root) or all(
            self.contradict(*around, one, other)
            for i, one in enumerate(narrowed)
            for j, other in enumerate(given)
            if i != j
        )

    def contradict(self, *schemas: Any, depth: int = 0) -> bool:
        """Whether it is proved that no value follows all ``schemas``."""
        if any(schema is False for schema in schemas):
            return True
        parts = list(_parts(schemas, self._root))
        self._left -= 1 + sum(map(_size, parts)) // LISTED_IN_STEP
        if self._left < 0 or depth > MAX_DEPTH:
            return False
        types = sorted(frozenset.intersection(_ALL_TYPES, *map(_types, parts)))
        if all(one in self._none and self._none[one](parts, depth) for one in types):
            return True
        return self._no_value(parts, depth) or self._no_branch(parts, depth)

    def _no_object(self, parts: Sequence[Mapping[str, Any]], depth: int) -> bool:
        names = dict.fromkeys(name for part in parts for name in part.get("required", ()))
        return any(
            self.contradict(*(_said_of(name, part) for part in parts), depth=depth + 1)
            for name in names
        )

    def _no_value(self, parts: Sequence[Mapping[str, Any]], depth: int) -> bool:
        """Whether no listed value follows all parts; False if none are listed."""
        lists = [values for values in map(_keys, parts) if values is not None]
        if not lists:
            return False
        rest = [_without(part, "enum", "const") for part in parts]
        return all(
            self.contradict(*rest, _description(value), depth=depth + 1)
            for key, value in lists[0].items()
            if all(key in values for values in lists)
        )

    def _no_branch(self, parts: Sequence[Mapping[str, Any]], depth: int) -> bool:
        """Whether no branch of the first ``anyOf`` or ``oneOf`` is possible; False if there is
        none."""
        found = [(part, word) for part in parts for word in ("anyOf", "oneOf") if word in part]
        if not found:
            return False
        first, word = found[0]
        rest = [_without(part, word) if part is first else part for part in parts]
        return all(self.contradict(*rest, one, depth=depth + 1) for one in first[word])


def tag_of(branches: Sequence[Any], root: Any) -> tuple[str, list[Mapping[str, Any]]] | None:
    """The name of a property whose listed values differ in all alternatives, and these with
    references resolved; None if there is none. They must be objects, but need not have the
    property."""
    plain = [_referred(branch, root) for branch in branches]
    if not plain or not all(_names_properties(one) for one in plain):
        return None
    for name in plain[0]["properties"]:
        if _differ([_keys(one["properties"].get(name)) for one in plain]):
            return name, plain
    return None


def _names_properties(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" and isinstance(schema.get("properties"), Mapping)


def _told_apart_by_values(branches: Sequence[Any], root: Any) -> bool:
    """Whether listed values alone tell all branches apart. Comparing pairs would take too long:
    there may be thousands."""
    plain = [_referred(branch, root) for branch in branches]
    if _differ([_keys(one) for one in plain]):
        return True
    if not all(one.get("type") == "object" for one in plain):
        return False
    first, *others = (set(one.get("required", ())) for one in plain)
    names = first.intersection(*others)
    return any(_differ([_keys(_said_of(name, one)) for one in plain]) for name in names)


def _differ(lists: Sequence[Mapping[str, Any] | None]) -> bool:
    """Whether no value is in two of the lists; False if one is None, for any value."""
    seen: set[str] = set()
    for values in lists:
        if values is None or not seen.isdisjoint(values):
            return False
        seen |= values.keys()
    return True


def _parts(schemas: Sequence[Any], root: Any) -> Iterator[Mapping[str, Any]]:
    """The schemas, and those that apply with them by ``allOf`` and ``$ref``, up to `MAX_PARTS`."""
    waiting = list(schemas)
    for _ in range(MAX_PARTS):
        if not waiting:
            return
        schema = waiting.pop(0)
        if isinstance(schema, Mapping):
            yield _without(schema, "allOf", "$ref")
            waiting += schema.get("allOf", ())
            if "$ref" in schema:
                waiting.append(schema_walk.referred(schema["$ref"], root))


def _referred(schema: Any, root: Any) -> Mapping[str, Any]:
    """What a schema that is nothing but a reference refers to; else itself."""
    if isinstance(schema, Mapping) and keywords.is_reference(schema):
        schema = schema_walk.referred(schema["$ref"], root)
    return schema if isinstance(schema, Mapping) else {}


def _size(schema: Mapping[str, Any]) -> int:
    return len(schema.get("enum", ())) + len(schema.get("required", ()))


def _types(schema: Mapping[str, Any]) -> frozenset[str]:
    types = schema.get("type", _ALL_TYPES)
    types = frozenset([types] if isinstance(types, str) else types)
    return types | {"integer"} if "number" in types else types


def _keys(schema: Any) -> dict[str, Any] | None:
    """The values that it lists by ``const`` or ``enum``, by a key that equal ones share; None
    without a list."""
    if not isinstance(schema, Mapping) or schema.keys().isdisjoint({"const", "enum"}):
        return None
    values = [schema["const"]] if "const" in schema else schema["enum"]
    return {json.dumps(_plain(value), sort_keys=True): value for value in values}


def _plain(value: Any) -> Any:
    """The value with whole floats as integers: 1.0 equals 1."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _description(value: Any) -> dict[str, Any]:
    """A schema that the value follows, without a list of values at its root."""
    match value:
        case bool():
            return {"type": "boolean"}
        case int() | float():
            return {"type": "number", "minimum": value, "maximum": value}
        case str():
            return {"type": "string", "minLength": len(value), "maxLength": len(value)}
        case list():
            return {"type": "array", "minItems": len(value), "maxItems": len(value)}
        case Mapping():
            properties = {name: {"const": one} for name, one in value.items()}
            return {
                "type": "object",
                "properties": properties,
                "required": list(value),
                "additionalProperties": False,
            }
    return {"type": "null"}


def _said_of(name: str, schema: Mapping[str, Any]) -> Any:
    """The schema of the property with that name; patternProperties are left out."""
    properties = schema.get("properties", {})
    if name in properties:
        return properties[name]
    return True if "patternProperties" in schema else schema.get("additionalProperties", True)


def _no_number(parts: Sequence[Mapping[str, Any]], *, is_whole: bool) -> bool:
    """Whether no number is within all bounds."""
    low, above = (_most(parts, word, -math.inf) for word in ("minimum", "exclusiveMinimum"))
    high, below = (-_most(parts, word, -math.inf, -1) for word in ("maximum", "exclusiveMaximum"))
    first, last = max(low, above), min(high, below)
    if is_whole and math.isfinite(first) and math.isfinite(last):
        first, last = math.ceil(first), math.floor(last)
    return first > last or (first == last and (above == first or below == last))


def _no_count(parts: Sequence[Mapping[str, Any]], least: str, most: str) -> bool:
    return _most(parts, least, 0) > -_most(parts, most, -math.inf, -1)


def _most(
    parts: Sequence[Mapping[str, Any]], word: str, default: float, sign: int = 1
) -> int | float:
    """The largest value of the keyword ``word`` in all parts, times ``sign``."""
    return max((sign * part[word] for part in parts if word in part), default=default)


def _without(schema: Mapping[str, Any], *words: str) -> Mapping[str, Any]:
    return {word: value for word, value in schema.items() if word not in words}
