"""The OpenAPI description, corrected: statuses, error bodies, keys, and the ranges of fields.

The framework knows routes and bodies; it does not know what the guard answers, that errors have a
form of their own, or what `sampling_limits.py` allows. Tables of facts about routes stand here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from quire.sampling_limits import RULES
from quire.server.fields import HARMLESS
from quire.server.guard import PROBES, is_open

Json = dict[str, Any]

GENERATING = frozenset({"/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages"})
_ANTHROPIC = "/v1/messages"
_TEXT = {"/metrics": "text/plain"}

_MEANINGS = {
    400: "The request is wrong; the message says what to change",
    401: "The key is missing or wrong",
    403: "A page of another site has sent a form, which is refused",
    404: "There is no such model, request or response",
    408: "A time limit passed before there was any output",
    409: "Not possible while requests are running",
    413: "The body is too large",
    415: "The body is not JSON, or its Content-Type does not say so",
    429: "Too many requests are in flight; try again after Retry-After seconds",
    500: "The server or its engine failed",
    503: "The server is loading, draining or dead; try again after Retry-After seconds",
}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}
_ANTHROPIC_ERROR: Json = {
    "type": "object",
    "required": ["type", "error"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {
                "type": {"type": "string"},
                "message": {"type": "string"},
                "details": {"type": "object"},
            },
        },
        "request_id": {"type": ["string", "null"]},
    },
}
_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
}
# Field -> its range in JSON schema; `RULES` has the texts.
RANGES: dict[str, Json] = {
    "n": {"minimum": 1, "maximum": 16384},
    "best_of": {"minimum": 1, "maximum": 16384},
    "presence_penalty": {"minimum": -2, "maximum": 2},
    "frequency_penalty": {"minimum": -2, "maximum": 2},
    "repetition_penalty": {"minimum": 1e-6, "maximum": 1e6},
    "temperature": {"minimum": 0, "maximum": 2},
    "top_p": {"exclusiveMinimum": 0, "maximum": 1},
    "top_k": {"minimum": -1},
    "min_p": {"minimum": 0, "maximum": 1},
    "min_tokens": {"minimum": 0, "maximum": 2**31 - 1},
    "stream_interval": {"minimum": 1},
    "length_penalty": {"minimum": -10, "maximum": 10},
    "messages": {"minItems": 1},
    "tools": {"minItems": 1},
}


def make_true(description: Json, *, has_keys: bool, strict_fields: bool) -> Json:
    """Correct the framework's description in place, and return it."""
    schemas: Json = description.setdefault("components", {}).setdefault("schemas", {})
    for framework_error in ("HTTPValidationError", "ValidationError"):
        schemas.pop(framework_error, None)
    bodies = set()
    for path, operations in description["paths"].items():
        for method, operation in operations.items():
            _tell_responses(path, method, operation, has_keys)
            if has_keys and not is_open(path):
                operation["security"] = [{name: []} for name in _SCHEMES]
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                bodies.add(schema["$ref"].rpartition("/")[2])
    for name in bodies:
        _tell_ranges(schemas[name])
        if strict_fields:
            known = schemas[name]["properties"]
            schemas[name] |= {
                "properties": {**{field: _harmless(field) for field in sorted(HARMLESS)}, **known},
                "additionalProperties": False,
            }
    schemas |= {"Error": _ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    if has_keys:
        description["components"]["securitySchemes"] = _SCHEMES
    return description


def _harmless(name: str) -> Json:
    """The schema of a field that has no effect."""
    return {"anyOf": [{"type": HARMLESS[name].schema}, {"type": "null"}]}


def _tell_responses(path: str, method: str, operation: Json, has_keys: bool) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    good: Json = {_TEXT.get(path, "application/json"): {"schema": {}}}
    if path in GENERATING:
        good["text/event-stream"] = {"schema": {}}
    responses["200"] = {"description": "Done", "content": good}
    if path in PROBES - {"/startupz"}:
        responses["200"] = {"description": "Yes"}
    name = "AnthropicError" if path.startswith(_ANTHROPIC) else "Error"
    schema: Json = {"$ref": f"#/components/schemas/{name}"}
    for status in sorted(set(_statuses(path, method, operation, has_keys))):
        # The 503 of /startupz reports how far the start is.
        form = {"type": "object"} if path == "/startupz" and status == 503 else schema
        responses[str(status)] = {
            "description": _MEANINGS[status],
            "content": {"application/json": {"schema": form}},
        }


def _statuses(path: str, method: str, operation: Json, has_keys: bool) -> Iterator[int]:
    """The error statuses of an operation."""
    yield 400
    if has_keys and not is_open(path):
        yield 401
    if method == "post":
        yield from (403, 413, 415)
    if "{" in path or "requestBody" in operation:
        yield 404
    if "requestBody" in operation:
        yield from (408, 500, 503)
    if path in GENERATING:
        yield 429
    if path in PROBES or path.startswith("/v1/models"):
        yield 503
    if path == "/reset_prefix_cache":
        yield from (409, 500, 503)


def _tell_ranges(schema: Json) -> None:
    for name, field in schema["properties"].items():
        if name in RULES:
            field.setdefault("description", f"{RULES[name].limit}; {RULES[name].remedy}")
        for kind in field.get("anyOf", [field]):
            if name in RANGES and kind.get("type") in ("integer", "number", "array"):
                kind.update(RANGES[name])
