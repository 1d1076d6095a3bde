"""The grammar of outputs that must call tools, and the parser of such outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from quire.incremental import Source, Steps, peek, skip
from quire.structured import GrammarSpec
from quire.structured_outputs import keywords, schema_walk
from quire.structured_outputs.check import MAX_DEPTH
from quire.tools.definitions import Tools
from quire.tools.events import CallArguments, CallBegin, CallEnd, CallEvents, Event
from quire.tools.formats.marked import unmarked_list
from quire.tools.parser import Grammar, ToolParser, grammar_parser
from quire.tools.registry import CallText, ToolFormat

# The schema of a tool that is described without parameters: it has none (OpenAI's reference of
# `parameters`).
_NO_ARGUMENTS: Mapping[str, Any] = {"type": "object", "additionalProperties": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class MustCall:
    """Tools that have to be called: all that a request has, or one of them."""

    tools: Tools
    is_named: bool = False  # exactly one call, of the one tool
    is_parallel: bool = True  # several calls may be made
    call_text: CallText | None = None  # how the model writes calls; None: as a plain list


def constraint(call: MustCall) -> GrammarSpec:
    """The grammar of the calls: in the model's own form if it is known, else the arguments, or a
    list of calls, as JSON."""
    if call.call_text is not None:
        return GrammarSpec(kind="structural_tag", source=_json(_tags(call, call.call_text)))
    if call.is_named:
        (schema,) = call.tools.schemas.values()
        return GrammarSpec(kind="json", source=_json(_arguments(schema)))
    return GrammarSpec(kind="json", source=_json(_list_schema(call)))


def constrained_parser(call: MustCall, format: ToolFormat | None) -> ToolParser:
    """A parser for what the grammar of `constraint` admits, which may be cut off anywhere."""
    return _CallsOnly(_text_parser(call, format), call.tools)


def _text_parser(call: MustCall, format: ToolFormat | None) -> ToolParser:
    if call.call_text is not None and format is not None:
        return format.parser(call.tools)
    grammar: Grammar = unmarked_list
    if call.is_named:
        (name,) = call.tools.names
        grammar = _whole_arguments(name)
    if format is not None:
        grammar = format.own_calls_or(grammar)
    return grammar_parser(grammar, call.tools)


class _CallsOnly:
    """Drops content, which is part of the marks of calls and nothing for the user. A call of a tool
    without parameters gets ``{}`` as soon as it begins, whatever white space the model writes
    there."""

    def __init__(self, parser: ToolParser, tools: Tools) -> None:
        self._parser = parser
        self._tools = tools
        self._is_bare = False  # the last call has no arguments

    def feed(self, text: str) -> list[Event]:
        return self._calls(self._parser.feed(text))

    def finish(self) -> list[Event]:
        return self._calls(self._parser.finish())

    def _calls(self, events: list[Event]) -> list[Event]:
        calls: list[Event] = []
        for event in events:
            if isinstance(event, CallBegin):
                self._is_bare = not self._tools.schemas.get(event.name)
                calls += [event, CallArguments(event.index, "{}")] if self._is_bare else [event]
            elif isinstance(event, CallEnd) or (
                isinstance(event, CallArguments) and not self._is_bare
            ):
                calls.append(event)
        return calls


def call_text_of(format: ToolFormat | None, special_tokens: frozenset[str]) -> CallText | None:
    """How calls are written; None if that takes special tokens, which a grammar cannot produce."""
    if format is None or format.call_text is None or special_tokens.intersection(format.marks):
        return None
    return format.call_text


def _tags(call: MustCall, text: CallText) -> dict[str, Any]:
    tags = [
        {
            "type": "tag",
            "begin": text.begin.replace("NAME", json.dumps(name)[1:-1]),
            "content": {"type": "json_schema", "json_schema": _arguments(schema)},
            "end": text.end,
        }
        for name, schema in call.tools.schemas.items()
    ]
    several = {
        "type": "tags_with_separator",
        "tags": tags,
        "separator": text.separator,
        "at_least_one": True,
        "stop_after_first": not call.is_parallel,
    }
    return {"type": "structural_tag", "format": tags[0] if call.is_named else several}


def _arguments(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a tool's arguments, which are an object even if it names no type, or others
    too."""
    if not schema:
        return _NO_ARGUMENTS
    is_open = "object" in keywords.types_of(schema)
    return {**schema, "type": "object"} if is_open else schema


def _list_schema(call: MustCall) -> dict[str, Any]:
    """The schema of a list of calls. Each tool's schema is one of its definitions, with references
    changed accordingly."""
    definitions: dict[str, Any] = {}
    kinds: list[dict[str, Any]] = []
    for i, (name, schema) in enumerate(call.tools.schemas.items()):
        place = f"#/$defs/tool{i}"
        definitions[f"tool{i}"] = _moved(_arguments(schema), place)
        properties = {"name": {"const": name}, "parameters": {"$ref": place}}
        kinds.append(
            {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        )
    most = {} if call.is_parallel else {"maxItems": 1}
    items = {"anyOf": kinds}
    return {"type": "array", "minItems": 1, **most, "items": items, "$defs": definitions}


def _moved(schema: Any, place: str) -> Any:
    """A tool's schema with references within it changed for its new place. It is a document of its
    own, as is each schema in it that has an ``$id``: pointers begin there, and names of places hold
    only there."""
    if not isinstance(schema, Mapping):
        return schema
    return _Document(place).moved({key: one for key, one in schema.items() if key != "id"}, place)


@dataclass(frozen=True, slots=True)
class _Document:
    """A schema that references within it begin from."""

    place: str  # in the list's schema, as a reference

    def moved(self, schema: Any, place: str) -> Any:
        """The schema ``place`` of the document."""
        if not isinstance(schema, Mapping) or place.count("/") > MAX_DEPTH:  # `check.py` says so
            return schema
        own = schema.get("$id")
        if isinstance(own, str) and not own.startswith("#"):
            rest = {key: one for key, one in schema.items() if key != "$id"}
            return _Document(place).moved(rest, place)
        return {word: self._value(word, one) for word, one in self._parts(schema, place).items()}

    def _parts(self, schema: Mapping[str, Any], place: str) -> dict[str, Any]:
        """The schema with those inside it moved."""
        moved = schema_walk.map_schemas(
            schema, lambda one, inside: self.moved(one, f"{place}/{_as_pointer(inside)}")
        )
        if "propertyNames" in schema:
            moved["propertyNames"] = self.moved(schema["propertyNames"], f"{place}/propertyNames")
        return moved

    def _value(self, word: str, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if word == "$ref" and (value == "#" or value.startswith("#/")):
            return self.place + value.removeprefix("#")
        if word == "$anchor":
            return self._name(value)
        if word in ("$ref", "$id") and value.startswith("#"):
            return f"#{self._name(value.removeprefix('#'))}"
        return value

    def _name(self, name: str) -> str:
        """The name of a place, unlike that of any other document's."""
        document = re.sub("[^A-Za-z0-9]", lambda found: f"_{ord(found[0])}_", self.place)
        return f"{document}.{name}"


def _as_pointer(inside: str) -> str:
    """The place of a schema directly in another, as a reference writes it."""
    word, _, name = inside.partition("/")
    return f"{word}/{quote(schema_walk.escaped(name), safe='~')}" if name else word


def _whole_arguments(name: str) -> Grammar:
    """A grammar that reads all the text, or the rest of it, as the arguments of one call."""

    def grammar(source: Source, out: CallEvents, tools: Tools) -> Steps[None]:
        if not (yield from skip(source)):
            return
        out.begin(name)
        while (yield from peek(source)):
            out.arguments(source.between(source.pos, source.end))
            source.pos = source.end
            source.release()
        out.end()

    return grammar


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
