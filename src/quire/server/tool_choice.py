"""What a request says about tools: whether it makes sense, and which of them must be called."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from quire.server.errors import HTTPError, bad_request
from quire.shown import shown
from quire.tools.json_text import MAX_NAME, is_name

Choice = str | dict[str, Any] | None
_WORDS = ("none", "auto", "required")
_CORRECT = '{"type": "function", "function": {"name": "my_function"}}'


class ToolUse(enum.Enum):
    """Whether an answer may or must call tools."""

    NEVER = "never"
    MAY = "may"
    MUST = "must"
    MUST_ONE = "must, this one"


def tool_use(tools: list[dict[str, Any]] | None, choice: Choice) -> ToolUse:
    """What the fields say, which `check_tools` must have passed."""
    if not tools or choice == "none":
        return ToolUse.NEVER
    if isinstance(choice, dict):
        return ToolUse.MUST_ONE
    return ToolUse.MUST if choice == "required" else ToolUse.MAY


def chosen_name(choice: Choice) -> str | None:
    """The name of the one tool that must be called, if the choice names it."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else None


def check_tools(tools: list[dict[str, Any]] | None, choice: Choice) -> None:
    """400 for tools and choices that do not fit together."""
    if isinstance(choice, str) and choice not in _WORDS:
        raise bad_request(
            f"Invalid value for `tool_choice`: {shown(choice)}! Only named tools, 'none', 'auto' "
            "or 'required' are supported.",
            "tool_choice",
        )
    if choice not in (None, "none") and not tools:
        raise bad_request("When using `tool_choice`, `tools` must be set.", "tool_choice")
    names = _names(tools or [])
    if isinstance(choice, dict):
        name = chosen_name(choice)
        if choice.get("type") == "allowed_tools":
            raise bad_request(
                "`tool_choice` of the type 'allowed_tools' is not supported: leave out of `tools` "
                "what must not be called, and pass 'auto' or 'required'.",
                "tool_choice",
            )
        if choice.get("type", "function") != "function":
            raise bad_request(
                f"tool_choice.type: must be 'function', got {shown(choice['type'])}; correct "
                f"usage: `{_CORRECT}`.",
                "tool_choice.type",
            )
        if name is None:
            raise bad_request(
                "Expected field `name` in `function` in `tool_choice`! Correct usage: "
                f"`{_CORRECT}`.",
                "tool_choice",
            )
        if name not in names:
            raise bad_request(
                "The tool specified in `tool_choice` does not match any of the specified `tools`: "
                f"there is no {shown(name)}.",
                "tool_choice",
            )


def no_parser() -> HTTPError:
    """The error for tools when the format of the model's calls is not known."""
    return bad_request(
        '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set: '
        "the chat template does not show how the model calls tools. Start the server with them, "
        "or pass tool_choice 'none' to only show the tools to the model.",
        "tools",
    )


def _names(tools: list[dict[str, Any]]) -> list[str]:
    names: dict[str, None] = {}
    for i, tool in enumerate(tools):
        place = f"tools[{i}]"
        name = _name(tool, place)
        if name in names:
            raise bad_request(
                f"{place}.function.name: there is already a tool {shown(name)}; give each tool "
                "its own name.",
                f"{place}.function.name",
            )
        names[name] = None
    return [*names]


def _name(tool: Mapping[str, Any], place: str) -> str:
    if tool.get("type", "function") != "function":
        raise bad_request(
            f"{place}.type: must be 'function', got {shown(tool['type'])}.", f"{place}.type"
        )
    given = tool.get("function")
    function = given if isinstance(given, Mapping) else {}
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise bad_request(
            f"{place}.function.name: a tool needs a name, as in {_CORRECT}.", f"{place}.function"
        )
    if not is_name(name):
        raise bad_request(
            f"{place}.function.name: {shown(name)} ({len(name)} characters) is not a valid name; "
            f"use at most {MAX_NAME} characters, all printable, and no white space at the ends.",
            f"{place}.function.name",
        )
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise bad_request(
            f"{place}.function.parameters: must be a JSON schema, an object, got "
            f"{shown(parameters)}.",
            f"{place}.function.parameters",
        )
    return name
