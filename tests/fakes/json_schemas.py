"""Random JSON schemas of the keywords that are honoured, each with the keywords that it has."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

Schema = dict[str, Any]

_NAMES = ("name", "age", "city", "tags", "id", "zip code", "é", 'a"b', "items", "x_1")
_PATTERNS = ("^[a-z]{2,5}$", "^[A-Z][a-z]*$", "^\\d{3}-\\d{4}$", "ab+", "^(yes|no)$")
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4", "email", "duration", "hostname")
_DEPTH = 3


def random_schema(seed: int) -> Schema:
    """An object at its root; the same for the same seed."""
    rng = random.Random(seed)
    schema = _object(rng, _DEPTH)
    if rng.random() < 0.3:
        schema["$defs"] = {"part": _any(rng, 1)}
        schema["properties"]["part"] = {"$ref": "#/$defs/part"}
        schema["required"] = [*schema.get("required", ()), "part"]
    return schema


def large_schema(seed: int) -> Schema:
    """Wide, deep, or with long lists: by its seed in turn."""
    rng = random.Random(seed)
    return (_wide, _wide_and_required, _deep, _long_lists)[seed % 4](rng)


def keywords_of(schema: Any) -> Iterator[str]:
    """Every keyword in it; names of properties are none."""
    if isinstance(schema, list):
        for one in schema:
            yield from keywords_of(one)
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        yield name if name != "format" else f"format {value}"
        if name in ("properties", "patternProperties", "$defs"):
            for one in value.values():
                yield from keywords_of(one)
        elif name not in ("enum", "const", "required", "type"):
            yield from keywords_of(value)


def _any(rng: random.Random, depth: int) -> Schema:
    makers: list[Callable[[random.Random, int], Schema]] = [_string, _number, _integer, _listed]
    makers += [_string, _plain]
    if depth > 0:
        makers += [_object, _array, _one_of_several, _several_types, _all_of, _tuple, _map]
    return rng.choice(makers)(rng, depth - 1)


def _string(rng: random.Random, depth: int) -> Schema:
    kind = rng.random()
    if kind < 0.3:
        return {"type": "string", "pattern": rng.choice(_PATTERNS)}
    if kind < 0.6:
        return {"type": "string", "format": rng.choice(_FORMATS)}
    least = rng.randint(0, 6)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 20)}


def _integer(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(-1000, 1000)
    schema: Schema = {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 500)}
    if rng.random() < 0.3:
        return {"type": "integer", "multipleOf": rng.randint(2, 12), "minimum": 0, "maximum": 99}
    if rng.random() < 0.3:
        return {"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + 30}
    return schema


def _number(rng: random.Random, depth: int) -> Schema:
    low = round(rng.uniform(-50, 50), 2)
    return {"type": "number", "minimum": low, "maximum": round(low + rng.uniform(0.5, 90), 2)}


def _listed(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.3:
        return {"const": rng.choice(["fixed", 7, None, True, [1, 2], {"k": "v"}])}
    return {"enum": rng.sample(["red", "green", "blu\u00eb", 3, -1.5, None, False], 3)}


def _wide(rng: random.Random) -> Schema:
    """Any of hundreds may be next."""
    names = [f"field_{i}" for i in range(rng.randint(200, 900))]
    parts = {name: _any(rng, 0) for name in names}
    return {"type": "object", "properties": parts, "required": rng.sample(names, 3)}


def _wide_and_required(rng: random.Random) -> Schema:
    names = [f"f{i}" for i in range(rng.randint(20, 60))]
    parts = {name: _plain(rng, 0) for name in names}
    return {"type": "object", "properties": parts, "required": names}


def _deep(rng: random.Random) -> Schema:
    """Objects in lists in objects, and then some."""
    schema = _any(rng, 0)
    for level in range(rng.randint(8, 20)):
        if rng.random() < 0.3:
            schema = {"type": "array", "items": schema, "minItems": 1, "maxItems": 1}
        else:
            name = f"level_{level}"
            schema = {"type": "object", "properties": {name: schema}, "required": [name]}
    return schema


def _long_lists(rng: random.Random) -> Schema:
    words = [f"{rng.choice(_NAMES)} number {i}" for i in range(rng.randint(500, 3000))]
    part: Schema = {"enum": words}
    several = {"type": "array", "items": part, "minItems": 5, "maxItems": 9}
    return {"type": "object", "properties": {"one": part, "some": several}, "required": ["some"]}


def _plain(rng: random.Random, depth: int) -> Schema:
    return {"type": rng.choice(["boolean", "null"])}


def _object(rng: random.Random, depth: int) -> Schema:
    names = rng.sample(_NAMES, rng.randint(1, 4))
    schema: Schema = {"type": "object", "properties": {n: _any(rng, depth) for n in names}}
    schema["required"] = [name for name in names if rng.random() < 0.7]
    if rng.random() < 0.5:
        schema["additionalProperties"] = False
    if rng.random() < 0.3:
        schema["title"], schema["description"] = "T", "what it is"
    return schema


def _map(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.5:
        kind = {"type": "integer", "minimum": 0, "maximum": 9}
        return {
            "type": "object",
            "patternProperties": {"^k[0-9]$": kind},
            "additionalProperties": False,
        }
    kind = {"type": "boolean"}
    return {"type": "object", "additionalProperties": kind}


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _any(rng, depth),
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }


def _tuple(rng: random.Random, depth: int) -> Schema:
    parts = [_any(rng, 0) for _ in range(rng.randint(1, 3))]
    return {"type": "array", "prefixItems": parts, "items": False, "minItems": len(parts)}


def _one_of_several(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.5:
        return {"anyOf": [_any(rng, depth) for _ in range(2)]}
    kinds = [
        {
            "type": "object",
            "properties": {"kind": {"const": kind}, "value": _any(rng, 0)},
            "required": ["kind", "value"],
            "additionalProperties": False,
        }
        for kind in ("a", "b")
    ]
    return {"oneOf": kinds}


def _several_types(rng: random.Random, depth: int) -> Schema:
    return {"type": ["integer", "null"], "minimum": 0, "maximum": 30}


def _all_of(rng: random.Random, depth: int) -> Schema:
    parts = [
        {"type": "object", "properties": {name: _any(rng, 0)}, "required": [name]}
        for name in ("left", "right")
    ]
    return {"allOf": parts}
