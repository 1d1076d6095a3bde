"""Narrows a checked JSON schema to what its author most likely means, never widens it.

* An object that names its properties and says nothing of others has no others, as with every other
  engine: a model that may make up names does.
* Dates and times are days and hours that there are, and host names are as long as they may be.
* Numbers with a bound so far out that they are not exact there stay where they are.

Whatever the narrowed schema admits, the given one admits too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from quire.structured_outputs import keywords
from quire.structured_outputs.patterns import plain_anchors

_DROPPED = (*keywords.REFUSED, *keywords.ANNOTATIONS)  # the former with values that ask for nothing


def narrowed(schema: Any, *, closes_objects: bool = False) -> Any:
    """``closes_objects``: also where a schema combines others, or says that there may be more."""
    closes = closes_objects or not _combines(schema)
    return _narrow(schema, schema, closes=closes, forced=closes_objects)


def _narrow(schema: Any, root: Any, *, closes: bool, forced: bool) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    said = {
        name: value
        for name, value in _with_patterns(schema).items()
        if name not in _DROPPED and not name.startswith("x-")
    }
    out = keywords.map_schemas(
        said, lambda one, place: _narrow(one, root, closes=closes, forced=forced)
    )
    if "anyOf" not in out and _exclude_each_other(schema.get("oneOf", ()), root):
        out["anyOf"] = out.pop("oneOf")
    _narrow_format(out)
    _narrow_bounds(out)
    if "pattern" in out:
        out["pattern"] = plain_anchors(out["pattern"])
    if "patternProperties" in out:
        of_names = out["patternProperties"]
        out["patternProperties"] = {plain_anchors(name): one for name, one in of_names.items()}
    if isinstance(out.get("items"), list):  # as schemas before 2020 had it
        out["prefixItems"] = out.pop("items")
        if "additionalItems" in out:
            out["items"] = out.pop("additionalItems")
    out.pop("additionalItems", None)
    if "unevaluatedProperties" in out:
        out.setdefault("additionalProperties", out.pop("unevaluatedProperties"))
    if "properties" in out:
        if "type" not in out and "$ref" not in out:
            out["type"] = "object"
        if (forced or (closes and _says_nothing_of_others(out))) and not _is_false(out):
            out["additionalProperties"] = False
    elif forced and out.get("type") == "object" and "patternProperties" not in out:
        out.setdefault("additionalProperties", False)
    return out


def _exclude_each_other(branches: Sequence[Any], root: Any) -> bool:
    """Whether all are objects that a property, which each requires, tells apart by its values."""
    objects = [keywords.resolved(branch, root) for branch in branches]
    if not objects or not all(one.get("type") == "object" for one in objects):
        return False
    names = set.intersection(*(set(one.get("required", ())) for one in objects))
    return any(_differ([one.get("properties", {}).get(name) for one in objects]) for name in names)


def _differ(properties: list[Any]) -> bool:
    """Whether no value is one of two of them; values that are no texts are not compared."""
    seen: set[str] = set()
    for one in properties:
        values = _texts_of(one)
        if not values or seen & values:
            return False
        seen |= values
    return True


def _texts_of(schema: Any) -> set[str]:
    """The only texts that are admitted; none where it may be anything else."""
    if not isinstance(schema, Mapping):
        return set()
    values = [schema["const"]] if "const" in schema else schema.get("enum", [])
    return set(values) if all(isinstance(value, str) for value in values) else set()


def _narrow_format(out: dict[str, Any]) -> None:
    """To a pattern, a length or bounds, where one says it; gone where it asks for nothing."""
    format = out.get("format")
    if format in keywords.FORMAT_BOUNDS:
        del out["format"]
        low, high = keywords.FORMAT_BOUNDS[format]
        out["minimum"] = max(low, out.get("minimum", low))
        out["maximum"] = min(high, out.get("maximum", high))
    elif format is not None and keywords.is_annotation(out):
        del out["format"]
    elif format in keywords.FORMAT_PATTERNS:
        if "pattern" not in out and out.get("type") == "string":
            out["pattern"] = keywords.FORMAT_PATTERNS[out.pop("format")]
    elif format in keywords.FORMAT_LENGTHS:
        longest = keywords.FORMAT_LENGTHS[format]
        out["maxLength"] = min(longest, out.get("maxLength", longest))


def _narrow_bounds(out: dict[str, Any]) -> None:
    most = keywords.MAX_INTEGER
    for word, exclusive, sign in (
        ("minimum", "exclusiveMinimum", -1),
        ("maximum", "exclusiveMaximum", 1),
    ):
        if any(sign * out.get(name, 0) > most for name in (word, exclusive)):
            out[word] = sign * min(most, sign * out.get(word, sign * most))
            if sign * out.get(exclusive, 0) > most:
                del out[exclusive]


def _says_nothing_of_others(schema: Mapping[str, Any]) -> bool:
    open_words = ("additionalProperties", "patternProperties", "minProperties", "$ref")
    is_open = any(word in schema for word in open_words)
    return not is_open and set(schema.get("required", ())) <= set(schema["properties"])


def _is_false(schema: Mapping[str, Any]) -> bool:
    return schema.get("additionalProperties") is False


def _combines(schema: Any) -> bool:
    """Whether objects are described in parts, each of which must leave room for the others."""
    if not isinstance(schema, Mapping):
        return False
    has_sibling = "properties" in schema and any(
        word in schema for word in ("$ref", "anyOf", "oneOf")
    )
    if "allOf" in schema or has_sibling:
        return True
    return any(_combines(one) for _, one in keywords.schemas_in(schema))


def _with_patterns(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """``propertyNames`` as `patternProperties` without others, which says the same."""
    pattern = keywords.names_pattern(schema)
    if pattern is None:
        return schema
    of_values = schema.get("additionalProperties", True)
    return {**schema, "patternProperties": {pattern: of_values}, "additionalProperties": False}
