"""The tools of a Responses request as functions of a chat request, and which of them was called.

A namespace holds functions; in chat, and so for the model, each is called NAMESPACE__NAME. Tools of
other types are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quire.server.answer_form import ToolCall
from quire.server.errors import HTTPError, bad_request
from quire.server.text_parts import kind_of, not_served, string_at
from quire.shown import shown

Json = dict[str, Any]
_KEYS = ("description", "parameters", "strict")


@dataclass(frozen=True, kw_only=True, slots=True)
class ResponseFunction:
    """A function that the model may call."""

    place: str  # in the body
    name: str
    namespace: str | None
    definition: Json  # the chat function without its name

    @property
    def chat_name(self) -> str:
        return chat_name(self.name, self.namespace)

    @property
    def tool(self) -> Json:
        """The function as a tool of a chat request."""
        return {"type": "function", "function": {"name": self.chat_name, **self.definition}}


class ResponseTools:
    """The tools of one request; 400 for one that is neither a function nor a namespace."""

    def __init__(self, tools: list[Json] | None) -> None:
        self._functions = [
            function
            for i, tool in enumerate(tools or ())
            for function in _functions(tool, f"tools[{i}]")
        ]

    @property
    def in_chat(self) -> list[Json]:
        return [function.tool for function in self._functions]

    @property
    def places(self) -> dict[str, str]:
        """Place of a tool's part in the chat request -> its place in the body."""
        return {
            f"tools[{i}].function{part}": function.place + part
            for i, function in enumerate(self._functions)
            for part in ("", ".name", ".parameters")
        }

    def choice(self, choice: str | Json | None) -> str | Json | None:
        """``tool_choice`` for chat; it names no namespace, so only a unique name is resolved."""
        if not isinstance(choice, dict):
            return choice
        if kind_of(choice, "tool_choice") != "function":
            raise not_served(choice["type"], ("function",), "tool_choice")
        name = string_at(choice, "name", "tool_choice")
        found = [one.chat_name for one in self._functions if one.name == name]
        return {"type": "function", "function": {"name": found[0] if len(found) == 1 else name}}

    def own(self, call: ToolCall) -> ToolCall:
        """The call under the name and namespace that the request has for its function."""
        for one in self._functions:
            if one.chat_name == call.name:
                return replace(call, name=one.name, namespace=one.namespace)
        return call


def chat_name(name: str, namespace: str | None) -> str:
    return name if namespace is None else f"{namespace.rstrip('_')}__{name}"


def _functions(tool: Any, place: str) -> Iterator[ResponseFunction]:
    kind = kind_of(tool, place)
    if kind == "function":
        yield _function(tool, place)
    elif kind == "namespace":
        yield from _of_namespace(tool, place)
    else:
        raise _no_function(kind, place)


def _of_namespace(tool: Json, place: str) -> Iterator[ResponseFunction]:
    """The functions of a namespace; its description is put before that of the first one."""
    namespace, inside = string_at(tool, "name", place), tool.get("tools")
    if not isinstance(inside, list):
        raise bad_request(
            f"{place}.tools: must be a list of functions, got {shown(inside)}.", f"{place}.tools"
        )
    for i, one in enumerate(inside):
        own_place = f"{place}.tools[{i}]"
        kind = kind_of(one, own_place)
        if kind != "function":
            raise _no_function(kind, own_place)
        function = _function(one, own_place, namespace)
        if i == 0 and tool.get("description") is not None:
            about_all = string_at(tool, "description", place)
            description = _joined(about_all, function.definition)
            function = replace(
                function, definition={**function.definition, "description": description}
            )
        yield function


def _function(tool: Json, place: str, namespace: str | None = None) -> ResponseFunction:
    return ResponseFunction(
        place=place,
        name=string_at(tool, "name", place),
        namespace=namespace,
        definition={key: tool[key] for key in _KEYS if tool.get(key) is not None},
    )


def _joined(about_all: str, definition: Mapping[str, Any]) -> str:
    return "\n\n".join(filter(None, (about_all, str(definition.get("description", "")))))


def _no_function(kind: str, place: str) -> HTTPError:
    if kind == "custom":
        return bad_request(
            f"{place}: tools of the type 'custom' are not supported: they take free text, but "
            "calls here take JSON; define a function with one string parameter instead.",
            f"{place}.type",
        )
    return bad_request(
        f"{place}: tools of the type {shown(kind)} are not supported here; define a function, and "
        "run it in your program.",
        f"{place}.type",
    )
