"""Bounds on the number of properties, as far as a compiler can count them.

It counts what is written, and a name that the schema does not give may be written twice, while
readers of JSON keep the last. So at most one unnamed property can be required. If all names are
given, those that are optional are spelled out, choice by choice. Knows no other keywords.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CHOICES = 256
MAX_BYTES = 1 << 18  # of all choices as JSON
_COUNTS = ("minProperties", "maxProperties")
_SPELLED_OUT = ("properties", "required", "additionalProperties")


def count_properties(schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    """An equivalent schema for a compiler that counts what is written; ``ValueError`` if it would
    require more than one unnamed property."""
    required = dict.fromkeys(schema.get("required", ()))
    least = max(0, schema.get("minProperties", 0) - len(required))
    if schema.get("additionalProperties", True) is not False or "patternProperties" in schema:
        _check_nameless(least, path)
        return dict(schema)
    optional = [name for name in schema.get("properties", ()) if name not in required]
    most = min(schema.get("maxProperties", math.inf) - len(required), len(optional))
    rest = {word: value for word, value in schema.items() if word not in _COUNTS}
    if least > most:  # the compiler reports that it is unsatisfiable
        return {**schema, "required": [*required, *optional]}
    if (least, most) == (0, len(optional)):
        return rest
    if least <= 1 and most in (1, len(optional)):  # the compiler can count these
        at_most = {"maxProperties": len(required) + 1} if most == 1 else {}
        return {**rest, "minProperties": len(required) + least, **at_most}
    if schema.get("type") != "object":
        return dict(schema)
    return _spelled_out(rest, optional, least, int(most), path)


def with_choice(schema: Mapping[str, Any], choices: list[Any]) -> dict[str, Any]:
    """The schema with ``choices``, of which one must hold too."""
    if "anyOf" not in schema:
        return {**schema, "anyOf": choices}
    return {**schema, "allOf": [*schema.get("allOf", ()), {"anyOf": choices}]}


def _check_nameless(least: int, path: str) -> None:
    if least > 1:
        raise ValueError(
            f"JSON schema: the keyword 'minProperties' at {path}/minProperties cannot be honoured, "
            f"as {least} properties would need names that are not given, and one might be written "
            "twice; require them, or list all names in properties, with additionalProperties "
            "false, or in an enum of propertyNames."
        )


def _spelled_out(
    schema: Mapping[str, Any], optional: Sequence[str], least: int, most: int, path: str
) -> dict[str, Any]:
    """Spell out choices of which no object follows two: without a maximum each fixes the first
    optional properties that are present, else all of them."""
    takes_more = most == len(optional)
    sizes = range(least, least + 1 if takes_more else most + 1)
    num_choices = sum(math.comb(len(optional), size) for size in sizes)
    num_bytes = num_choices * len(json.dumps(schema["properties"]))
    if num_choices > MAX_CHOICES or num_bytes > MAX_BYTES:
        raise ValueError(
            f"JSON schema: minProperties and maxProperties at {path} leave {num_choices} choices "
            f"of properties, the limits are {MAX_CHOICES}, and {MAX_BYTES} bytes for all; require "
            "some, or have fewer."
        )
    rest = {word: value for word, value in schema.items() if word not in _SPELLED_OUT}
    return with_choice(
        rest,
        [
            _choice(schema, there, optional[optional.index(there[-1]) + 1 :] if takes_more else ())
            for size in sizes
            for there in itertools.combinations(optional, size)
        ],
    )


def _choice(
    schema: Mapping[str, Any], there: Sequence[str], later: Sequence[str]
) -> dict[str, Any]:
    """The schema of objects with ``there`` of the optional properties, and perhaps with ``later``
    ones."""
    required = [*schema.get("required", ()), *there]
    names = {*required, *later}
    properties = {name: one for name, one in schema["properties"].items() if name in names}
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
