"""Removes what has no effect from a JSON schema: definitions that nothing refers to, and
unsupported keywords with values that restrict nothing, and a type that a reference beside it has.
``not`` of everything, with which generators
write "never", becomes false. Takes schemas that are not checked yet. Knows no grammars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from quire.structured_outputs import keywords, schema_walk

_DEFINITIONS = ("$defs", "definitions")


def without_idle(root: Any) -> Any:
    """An equivalent schema without parts that have no effect."""
    return _without_idle(_without_unused(root), root)


def _without_idle(schema: Any, root: Any) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    if "not" in schema and keywords.says_nothing(schema["not"]):
        return False
    said = {
        word: value
        for word, value in schema.items()
        if word not in _IDLE or not _IDLE[word](schema, root)
    }
    return schema_walk.map_schemas(said, lambda one, place: _without_idle(one, root))


def _without_unused(root: Any) -> Any:
    """Drop unused definitions; all are kept if a reference leads nowhere."""
    if not isinstance(root, Mapping) or root.keys().isdisjoint(_DEFINITIONS):
        return root
    references = _references(root)
    if any(schema_walk.referred(one, root) is True for one in references):
        return root
    used = {tuple(schema_walk.parts_of(one)[1:3]) for one in references}
    return {word: _used(word, value, used) for word, value in root.items()}


def _used(word: str, value: Any, used: set[tuple[str, ...]]) -> Any:
    if word not in _DEFINITIONS or not isinstance(value, Mapping):
        return value
    return {name: one for name, one in value.items() if (word, name) in used}


def _references(root: Mapping[str, Any]) -> set[str]:
    """All references in the schema outside its definitions, and in what they lead to."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting: list[Any] = [root]
    while waiting:
        one = waiting.pop()
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        waiting.append(one.get("propertyNames"))
        waiting += [
            inner
            for place, inner in schema_walk.schemas_in(one)
            if place.partition("/")[0] not in _DEFINITIONS
        ]
        reference = one.get("$ref")
        if isinstance(reference, str) and reference not in found:
            found.add(reference)
            waiting.append(schema_walk.referred(reference, root))
    return found


def _has_doubles(schema: Mapping[str, Any]) -> bool:
    """Whether there may be enough items for duplicates."""
    most = schema.get("maxItems")
    return not isinstance(most, (int, float)) or most > 1


def _named_types(schema: Mapping[str, Any]) -> frozenset[str]:
    return keywords.types_of(schema) if "type" in schema else frozenset()


def _has_type_anyway(schema: Mapping[str, Any], root: Any) -> bool:
    """Whether a reference, beside it or alone in its ``allOf``, admits no other types."""
    parts = schema.get("allOf")
    alone = parts[0] if isinstance(parts, list) and len(parts) == 1 else None
    reference = next(
        (one["$ref"] for one in (schema, alone) if isinstance(one, Mapping) and "$ref" in one), None
    )
    target = schema_walk.referred(reference, root) if isinstance(reference, str) else None
    if not isinstance(target, Mapping):
        return False
    mine = _named_types(schema)
    whole = {"integer"} if "number" in mine else set()
    implied = {"object"} if "properties" in target else set()  # as `narrow.py` reads it
    theirs = _named_types(target) or implied
    return bool(theirs) and mine <= keywords.TYPES and theirs <= mine | whole


def _depends(dependencies: Any) -> bool:
    """Whether any property needs anything else."""
    return not isinstance(dependencies, Mapping) or any(
        not isinstance(one, list) or one for one in dependencies.values()
    )


# Unsupported keyword -> whether it has no effect in a schema within a root.
_IDLE: dict[str, Callable[[Mapping[str, Any], Any], bool]] = {
    "not": lambda schema, root: schema["not"] is False,
    "uniqueItems": lambda schema, root: (
        schema["uniqueItems"] is False
        or (schema["uniqueItems"] is True and not _has_doubles(schema))
    ),
    "nullable": lambda schema, root: (
        schema["nullable"] is False
        or (schema["nullable"] is True and "null" in _named_types(schema))
    ),
    "propertyNames": keywords.admits_all_names,
    "unevaluatedItems": lambda schema, root: keywords.says_nothing(schema["unevaluatedItems"]),
    "dependentRequired": lambda schema, root: not _depends(schema["dependentRequired"]),
    "dependentSchemas": lambda schema, root: schema["dependentSchemas"] == {},
    "dependencies": lambda schema, root: not _depends(schema["dependencies"]),
    # Beside references that lead back to themselves, nothing can be followed.
    "type": lambda schema, root: _has_type_anyway(schema, root),
    "$recursiveAnchor": lambda schema, root: schema["$recursiveAnchor"] is False,
}
