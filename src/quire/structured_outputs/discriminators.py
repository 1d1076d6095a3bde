"""Requires the property that tells the alternatives of ``oneOf`` apart if it is optional, as with a
default: then ``oneOf`` can become ``anyOf``. This narrows the schema. Knows no grammars.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from quire.structured_outputs import keywords, schema_walk
from quire.structured_outputs.contradict import tag_of
from quire.structured_outputs.counts import with_choice

_CHOICES = ("anyOf", "oneOf")
MAX_DEPTH = 16  # of parts that must hold together


def with_tags_required(root: Any) -> Any:
    """The schema with such properties required; the same one if there are none. A property that a
    ``discriminator`` names is required too, since readers need it, whatever else tells the
    alternatives apart.

    What a reference leads to is narrowed for all that refer to it.
    """
    schemas = {id(one): one for one in schema_walk.all_schemas(root)}
    tagged: set[int] = set()  # whose alternatives are told apart then
    required: dict[int, list[str]] = {}
    for key, schema in schemas.items():
        for name, one in _named_tags(schema, root):
            required.setdefault(id(one), []).append(name)
        found = tag_of(schema.get("oneOf", ()), root)
        if found is not None and all(id(one) in schemas for one in found[1]):
            tagged.add(key)
            for one in found[1]:
                required.setdefault(id(one), []).append(found[0])
    return _changed(root, tagged, required) if required else root


def _named_tags(schema: Mapping[str, Any], root: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The property that its ``discriminator`` names, with each alternative that has it, including
    alternatives of alternatives."""
    described = schema.get("discriminator")
    name = described.get("propertyName") if isinstance(described, Mapping) else None
    waiting = [one for word in _CHOICES for one in schema.get(word, ())]
    seen: set[int] = set()
    while isinstance(name, str) and waiting:
        one = waiting.pop()
        if isinstance(one, Mapping) and keywords.is_reference(one):
            one = schema_walk.referred(one["$ref"], root)
        if not isinstance(one, Mapping) or id(one) in seen:
            continue
        seen.add(id(one))
        if _has(one, name, root):
            yield name, one
        waiting += [inner for word in _CHOICES for inner in one.get(word, ())]


def _has(schema: Any, name: str, root: Any, depth: int = 0) -> bool:
    """Whether it names the property, itself or in what must hold with it."""
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return False
    parts = [*schema.get("allOf", ())]
    if depth and "$ref" in schema:
        parts.append(schema_walk.referred(schema["$ref"], root))
    named = schema.get("properties", ())
    return name in named or any(_has(one, name, root, depth + 1) for one in parts)


def _changed(schema: Any, tagged: set[int], required: Mapping[int, list[str]]) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    out = schema_walk.map_schemas(schema, lambda one, place: _changed(one, tagged, required))
    if id(schema) in required:
        names = [*out.get("required", ()), *required[id(schema)]]
        out["required"] = list(dict.fromkeys(names))
    return with_choice(out, out.pop("oneOf")) if id(schema) in tagged else out
