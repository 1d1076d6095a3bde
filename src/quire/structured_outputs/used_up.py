"""Finds closed objects that may have all their properties already, though they have patterns for
more names.

A compiler that has no name left still allows the comma before one, and what follows is broken JSON.
Knows narrowed schemas, and no grammars.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quire.structured_outputs import keywords, schema_walk
from quire.structured_outputs.parts import in_place


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """An object with all names that are given, after which another name must be possible."""

    pattern: str  # one of those for other names
    schema: Mapping[str, Any]
    text: str  # up to the comma


def probes(root: Any) -> Iterator[Probe]:
    """A probe for each closed object with a pattern that a given name matches. Given are all names
    in the schemas of the same value, also if these are alternatives."""
    schemas = list(schema_walk.all_schemas(root))
    if not any("patternProperties" in one for one in schemas):
        return
    seen: set[str] = set()
    for schema in schemas:
        if keywords.is_reference(schema):
            continue  # what it leads to is there too
        parts = in_place([schema], root)
        for part in parts:
            patterns = _only_patterns(part)
            names = _given(parts) if patterns else []
            if not any(_may_match(one, name) for one in patterns for name in names):
                continue
            key = json.dumps([patterns, names])
            if key not in seen:
                seen.add(key)
                yield _probe(patterns, names)


def _only_patterns(schema: Mapping[str, Any]) -> list[str]:
    """The patterns of names in an object that allows no others."""
    if schema.get("additionalProperties", True) is not False:
        return []
    return [name for name, one in schema.get("patternProperties", {}).items() if one is not False]


def _given(parts: list[Mapping[str, Any]]) -> list[str]:
    names = (
        name for part in parts for name in (*part.get("properties", ()), *part.get("required", ()))
    )
    return list(dict.fromkeys(names))


def _probe(patterns: list[str], names: list[str]) -> Probe:
    schema = {
        "type": "object",
        "properties": {name: {"const": 0} for name in names},
        "required": names,
        "patternProperties": {one: {"const": 0} for one in patterns},
        "additionalProperties": False,
    }
    said = "".join(f"{json.dumps(name, ensure_ascii=False)}:0," for name in names)
    return Probe(pattern=patterns[0], schema=schema, text="{" + said)


def _may_match(pattern: str, name: str) -> bool:
    try:
        return re.search(pattern, name) is not None
    except re.error:  # it is of another dialect
        return True
