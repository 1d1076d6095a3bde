"""The schemas inside a JSON schema, and what its references lead to. Knows no other keywords."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

SCHEMA = frozenset({"items", "additionalProperties", "additionalItems", "unevaluatedProperties"})
SCHEMAS = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})  # lists of them
SCHEMAS_BY_NAME = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_INDEX = re.compile("0|[1-9][0-9]{0,8}")  # in references (RFC 6901)
_IN_FRAGMENTS = "/?:@!$&'()*+,;="  # besides letters, digits and -._~ (RFC 3986, section 3.5)


def referred(reference: str, root: Any) -> Any:
    """The schema that a reference within ``root`` leads to; True, which restricts nothing, if it
    leads nowhere."""
    start, *names = parts_of(reference)
    place: Any = root if start == "#" else True
    for name in names:
        if isinstance(place, Mapping):
            place = place.get(name, True)
        elif isinstance(place, list) and _INDEX.fullmatch(name) and int(name) < len(place):
            place = place[int(name)]
        else:
            return True
    return place


def parts_of(reference: str) -> list[str]:
    """What a reference names, from ``#`` on: JSON Pointers write some characters otherwise (RFC
    6901), and so do URIs, whose rules generators do not always keep."""
    start, *parts = unquote(reference).split("/")
    return [start, *(part.replace("~1", "/").replace("~0", "~") for part in parts)]


def escaped(name: str) -> str:
    """The name as JSON Pointers write it."""
    return name.replace("~", "~0").replace("/", "~1")


def as_uri(reference: str) -> str:
    """The reference with all characters that URIs do not have written by their codes."""
    return f"#{quote(unquote(reference.removeprefix('#')), safe=_IN_FRAGMENTS)}"


def map_schemas(schema: Mapping[str, Any], change: Callable[[Any, str], Any]) -> dict[str, Any]:
    """The schema with each schema directly inside it changed; ``change`` also gets its place."""
    return {name: _map_value(name, value, change) for name, value in schema.items()}


def schemas_in(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly inside one, each with its place. A keyword whose value is of the wrong
    kind has none."""
    found: list[tuple[str, Any]] = []
    map_schemas(schema, lambda one, place: found.append((place, one)))
    yield from found


def all_schemas(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schema and all schemas inside it, except booleans."""
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
