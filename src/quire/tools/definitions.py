"""The tools of a request, as parsers and grammars want to know them."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from quire.tools.json_text import is_encodable, loaded

_NO_LITERAL = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)


@dataclass(frozen=True, slots=True)
class Tools:
    """By their names; the values are JSON schemas of the arguments."""

    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Sequence[Any] | None) -> Tools:
        """Of OpenAI's definitions; parts that are missing say nothing."""
        schemas: dict[str, Mapping[str, Any]] = {}
        for one in definitions or ():
            function = one.get("function", one) if isinstance(one, Mapping) else {}
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                parameters = function.get("parameters")
                schemas[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
        return cls(schemas)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self.schemas)

    def is_text(self, tool: str, parameter: str) -> bool:
        """Whether a parameter is a string, as one is of which nothing is known."""
        properties = self.schemas.get(tool, {}).get("properties")
        schema = properties.get(parameter) if isinstance(properties, Mapping) else None
        return not isinstance(schema, Mapping) or _is_text(schema)

    def json_value(self, text: str) -> str:
        """The JSON of what a model wrote as plain text for a parameter that is not a string."""
        text = text.strip()
        if loaded(text) is not None or text == "null":
            return text
        known = {"true": "true", "false": "false", "none": "null"}.get(text.lower())
        return known or python_literal(text) or json_string(text)


def _is_text(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if kind is None and isinstance(schema.get("enum"), list):
        return all(isinstance(one, str) for one in schema["enum"])
    return kind == "string" or kind == ["string"] or not (schema.keys() - {"description", "title"})


def python_literal(text: str) -> str | None:
    """A Python literal as JSON; None if it is none, or has what JSON does not have."""
    try:
        with warnings.catch_warnings():  # escapes in its strings may be odd
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text)
        return _as_json(value)
    except _NO_LITERAL:
        return None


def _as_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if is_encodable(text) else json.dumps(value, allow_nan=False)


def json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
