"""Narrows a checked JSON schema to what its author most likely means, never widens it.

* An object that names its properties and says nothing of others has no others, as with every other
  engine: a model that may make up names does.
* Dates and times are days and hours that there are, and host names are as long as they may be.

Whatever the narrowed schema admits, the given one admits too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.structured_outputs import keywords

_DROPPED = (*keywords.REFUSED, *keywords.ANNOTATIONS)  # the former with values that ask for nothing


def narrowed(schema: Any, *, closes_objects: bool = False) -> Any:
    """``closes_objects``: also where a schema combines others, or says that there may be more."""
    return _narrow(schema, closes=closes_objects or not _combines(schema), forced=closes_objects)


def _narrow(schema: Any, *, closes: bool, forced: bool) -> Any:
    if not isinstance(schema, Mapping):
        return schema
    out = {
        name: _inside(name, value, closes=closes, forced=forced)
        for name, value in schema.items()
        if name not in _DROPPED and not name.startswith("x-")
    }
    pattern = keywords.FORMAT_PATTERNS.get(str(out.get("format")))
    if pattern is not None and "pattern" not in out and out.get("type") == "string":
        del out["format"]
        out["pattern"] = pattern
    longest = keywords.FORMAT_LENGTHS.get(str(out.get("format")))
    if longest is not None:
        out["maxLength"] = min(longest, out.get("maxLength", longest))
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


def _inside(name: str, value: Any, *, closes: bool, forced: bool) -> Any:
    if name in keywords.SCHEMAS_BY_NAME:
        return {key: _narrow(one, closes=closes, forced=forced) for key, one in value.items()}
    if name in keywords.SCHEMA or name in keywords.SCHEMAS:
        if isinstance(value, list):
            return [_narrow(one, closes=closes, forced=forced) for one in value]
        return _narrow(value, closes=closes, forced=forced)
    return value


def _says_nothing_of_others(schema: Mapping[str, Any]) -> bool:
    open_words = ("additionalProperties", "patternProperties", "minProperties", "$ref")
    is_open = any(word in schema for word in open_words)
    return not is_open and set(schema.get("required", ())) <= set(schema["properties"])


def _is_false(schema: Mapping[str, Any]) -> bool:
    return schema.get("additionalProperties") is False


def _combines(schema: Any) -> bool:
    """Whether objects are described in parts, each of which must leave room for the others."""
    if isinstance(schema, list):
        return any(map(_combines, schema))
    if not isinstance(schema, Mapping):
        return False
    has_sibling = "properties" in schema and any(
        word in schema for word in ("$ref", "anyOf", "oneOf")
    )
    return "allOf" in schema or has_sibling or any(_combines(one) for one in schema.values())
