"""Structural tags as Lark, if they are plain: text around JSON, one after the other.

Tags inside free text need another way of matching and are left to xgrammar. Knows nothing of
schemas.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

JsonText = Callable[[Any], str]  # from a schema to what stands for it in Lark


def tag_as_lark(tag: Mapping[str, Any], json_text: JsonText) -> str | None:
    """The body of the rule ``start``; None if the tag has a format that Lark cannot express, or is
    too deep, which `check.py` reports."""
    try:
        return _lark(tag["format"], json_text)
    except (KeyError, TypeError, RecursionError):  # xgrammar says what is wrong, if anything is
        return None


def _lark(format: Mapping[str, Any], json_text: JsonText) -> str:
    """``KeyError`` for a format or an option that is not known here."""
    handle, options = _FORMATS[format["type"]]
    if not set(format) <= {"type", *options}:
        raise KeyError(sorted(set(format) - {"type", *options})[0])
    return handle(format, json_text)


def _const_string(format: Mapping[str, Any], json_text: JsonText) -> str:
    return _literal(format["value"])


def _json_schema(format: Mapping[str, Any], json_text: JsonText) -> str:
    if format.get("style", "json") != "json":
        raise KeyError("style")
    return json_text(format["json_schema"])


def _sequence(format: Mapping[str, Any], json_text: JsonText) -> str:
    return "(" + " ".join(_lark(one, json_text) for one in format["elements"]) + ")"


def _or(format: Mapping[str, Any], json_text: JsonText) -> str:
    return "(" + " | ".join(_lark(one, json_text) for one in format["elements"]) + ")"


def _tag(format: Mapping[str, Any], json_text: JsonText) -> str:
    content = _lark(format["content"], json_text)
    return f"({_literal(format['begin'])} {content} {_literal(format['end'])})"


def _tags_with_separator(format: Mapping[str, Any], json_text: JsonText) -> str:
    tags = "(" + " | ".join(_lark(one, json_text) for one in format["tags"]) + ")"
    more = "" if format.get("stop_after_first") else f" ({_literal(format['separator'])} {tags})*"
    once = f"({tags}{more})"
    return once if format.get("at_least_one") else f"{once}?"


_FORMATS: dict[str, tuple[Callable[[Mapping[str, Any], JsonText], str], frozenset[str]]] = {
    "const_string": (_const_string, frozenset({"value"})),
    "json_schema": (_json_schema, frozenset({"json_schema", "style"})),
    "sequence": (_sequence, frozenset({"elements"})),
    "or": (_or, frozenset({"elements"})),
    "tag": (_tag, frozenset({"begin", "content", "end"})),
    "tags_with_separator": (
        _tags_with_separator,
        frozenset({"tags", "separator", "at_least_one", "stop_after_first"}),
    ),
}


def _literal(text: Any) -> str:
    """A text as a Lark literal; empty for an empty text, since Lark has no empty literal."""
    if not isinstance(text, str):
        raise TypeError(text)
    return json.dumps(text, ensure_ascii=False) if text else ""
