"""An Anthropic Messages request as a chat request: its blocks become messages.

Owns which types of blocks are allowed; all others are refused by name.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from quire.chat_calls import arguments_object
from quire.server.errors import bad_request, no_schema
from quire.server.protocol.common import ReasoningEffort
from quire.server.protocol.messages import (
    AnthropicMessage,
    AnthropicTool,
    AnthropicToolChoice,
    CountTokensRequest,
    MessagesRequest,
    OutputConfig,
    no_built_in_tool,
)
from quire.server.text_parts import (
    ChatContent,
    joined,
    kind_of,
    not_served,
    part_text,
    string_at,
    text_content,
)
from quire.shown import shown

# Fields of the chat request -> their names in this API.
_NAMES = {
    "stop": "stop_sequences",
    "reasoning_effort": "output_config.effort",
    "thinking_token_budget": "thinking.budget_tokens",
}
_TEXT = {"text": "text"}
_Placed = tuple[str, Any]  # where a part of the body stands, and the part
# The fields of these blocks are read; other types of blocks are refused.
_ASSISTANT_BLOCKS = ("text", "thinking", "redacted_thinking", "tool_use")
_USER_BLOCKS = ("text", "tool_result")
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_fields(body: MessagesRequest) -> dict[str, Any]:
    """The request as fields of a chat request."""
    fields = {**body.sampling_fields(), **prompt_fields(body)}
    return {**fields, "max_tokens": body.max_tokens, "stop": body.stop_sequences}


def names(body: CountTokensRequest) -> dict[str, str]:
    """Fields of the chat request -> their names in this API, for errors."""
    own = {"": "", ".name": ".name", ".parameters": ".input_schema"}  # parts of a tool
    tools = {
        f"tools[{i}].function{part}": f"tools[{i}]{name}"
        for i in range(len(body.tools or ()))
        for part, name in own.items()
    }
    return {**_NAMES, "response_format": _format(body)[0], **tools}


def prompt_fields(body: CountTokensRequest) -> dict[str, Any]:
    """The chat fields that the prompt depends on: messages, tools, output format and thinking."""
    if not body.messages:
        raise bad_request("messages: at least one message is required.", "messages")
    config, choice = body.output_config or OutputConfig(), body.tool_choice
    tools = [_tool(tool, f"tools[{i}]") for i, tool in enumerate(body.tools or ())]
    return {
        "messages": _messages(body),
        "continue_final_message": _is_prefilled(body),
        "tools": tools or None,
        "tool_choice": _tool_choice(choice, has_tools=bool(tools)),
        "response_format": _response_format(*_format(body)),
        "parallel_tool_calls": not (choice is not None and choice.disable_parallel_tool_use),
        **_thinking(body, config.effort),
    }


def _thinking(body: CountTokensRequest, effort: ReasoningEffort | None) -> dict[str, Any]:
    """The chat fields that say whether to think, and how much."""
    wish, template_kwargs = body.thinking, body.chat_template_kwargs
    kind = "adaptive" if wish is None else wish.type
    if wish is not None and kind == "enabled":
        if wish.budget_tokens is None:
            raise bad_request(
                "thinking.budget_tokens: must be given when thinking is enabled.",
                "thinking.budget_tokens",
            )
        template_kwargs = {"enable_thinking": True, "thinking": True, **(template_kwargs or {})}
    elif wish is not None and wish.budget_tokens is not None:
        raise bad_request(
            f"thinking.budget_tokens: goes with the type enabled, not with {kind}; leave it out.",
            "thinking.budget_tokens",
        )
    return {
        "reasoning_effort": "none" if kind == "disabled" else effort,
        "chat_template_kwargs": template_kwargs,
        "thinking_token_budget": wish and wish.budget_tokens,
    }


def _messages(body: CountTokensRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.system:
        messages.append({"role": "system", "content": text_content(body.system, _TEXT, "system")})
    places = enumerate(body.messages)
    for role, turn in itertools.groupby(places, lambda one: one[1].role):
        blocks = [block for i, message in turn for block in _blocks(message, f"messages[{i}]")]
        if role == "assistant":
            messages.append(_assistant_message(blocks))
        elif role == "user":
            messages += _user_messages(blocks)
        else:
            texts = [part_text(block, _TEXT, place) for place, block in blocks]
            messages.append({"role": role, "content": joined(texts)})
    return messages


def _blocks(message: AnthropicMessage, place: str) -> list[_Placed]:
    """The blocks of one message, each with its place in the body."""
    content, own_place = message.content, f"{place}.content"
    if isinstance(content, str):
        return [(own_place, {"type": "text", "text": content})]
    if content is None or (not content and message.role != "assistant"):
        raise bad_request(
            f"{own_place}: must be a string or a list of blocks, not empty.", own_place
        )
    return [(f"{own_place}[{i}]", block) for i, block in enumerate(content)]


def _is_prefilled(body: CountTokensRequest) -> bool:
    """Whether the answer continues the last message; 400 if that does not end with text."""
    last = body.messages[-1]
    if last.role != "assistant":
        return False
    if not _has_text_at_end(last):
        raise bad_request(
            "messages: the last message is the assistant's, so it would be continued, but it does "
            "not end with text; end with a user's message, or with the beginning of the answer.",
            "messages",
        )
    place, format = _format(body)
    if format and format.get("type") != "text":
        raise bad_request(
            f"{place}: cannot be combined with a beginning of the answer as the last message, "
            "since the JSON would begin anew after it; end with a user's message, or leave "
            f"{place} out.",
            place,
        )
    return True


def _has_text_at_end(message: AnthropicMessage) -> bool:
    if not isinstance(message.content, list):
        return bool(message.content)
    last = message.content[-1] if message.content else {}
    return last.get("type") == "text" and bool(last.get("text"))


def _assistant_message(blocks: list[_Placed]) -> dict[str, Any]:
    texts, thoughts, calls = [], [], []
    for place, block in blocks:
        kind = kind_of(block, place)
        if kind == "text":
            texts.append(string_at(block, "text", place))
        elif kind == "thinking":
            thoughts.append(string_at(block, "thinking", place))
        elif kind == "tool_use":
            calls.append(_tool_call(block, place))
        elif kind not in _ASSISTANT_BLOCKS:
            raise not_served(kind, _ASSISTANT_BLOCKS, place)
    message: dict[str, Any] = {"role": "assistant", "content": joined(texts) if texts else None}
    if thoughts:
        message["reasoning"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    return message


def _user_messages(blocks: list[_Placed]) -> list[dict[str, Any]]:
    """The chat messages of one user turn, in order; each tool result is a message of its own."""
    messages: list[dict[str, Any]] = []
    texts: list[str] = []

    def end_text() -> None:
        if texts:
            messages.append({"role": "user", "content": joined(list(texts))})
            texts.clear()

    for place, block in blocks:
        kind = kind_of(block, place)
        if kind == "text":
            texts.append(string_at(block, "text", place))
        elif kind == "tool_result":
            end_text()
            messages.append(_tool_message(block, place))
        else:
            raise not_served(kind, _USER_BLOCKS, place)
    end_text()
    return messages


def _tool_call(block: dict[str, Any], place: str) -> dict[str, Any]:
    arguments = block.get("input")
    if isinstance(arguments, list):  # as a model may have written it
        arguments = arguments_object(json.dumps(arguments, ensure_ascii=False))
    if not isinstance(arguments, dict):
        raise bad_request(f"{place}.input: must be an object, got {shown(arguments)}.", place)
    return {
        "id": string_at(block, "id", place),
        "type": "function",
        "function": {"name": string_at(block, "name", place), "arguments": arguments},
    }


def _tool_message(block: dict[str, Any], place: str) -> dict[str, Any]:
    content: ChatContent = ""
    if block.get("content") is not None:
        content = text_content(block["content"], _TEXT, f"{place}.content")
    call_id = string_at(block, "tool_use_id", place)
    message: dict[str, Any] = {"role": "tool", "tool_call_id": call_id, "content": content}
    if block.get("is_error"):
        message["is_error"] = True  # for templates that show it
    return message


def _tool(tool: AnthropicTool, place: str) -> dict[str, Any]:
    if tool.input_schema is None:
        raise bad_request(f"{place}: {no_built_in_tool(tool.name)}.", place)
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _tool_choice(
    choice: AnthropicToolChoice | None, *, has_tools: bool
) -> str | dict[str, Any] | None:
    if choice is not None and choice.type != "tool" and choice.name is not None:
        raise bad_request(
            f"tool_choice.name: goes with the type tool, not with {choice.type}; leave it out.",
            "tool_choice.name",
        )
    if choice is None or (choice.type == "auto" and not has_tools):
        return None
    if choice.type != "tool":
        return _CHOICES[choice.type]
    if choice.name is None:
        raise bad_request("tool_choice.name: a tool must be named.", "tool_choice.name")
    return {"type": "function", "function": {"name": choice.name}}


def _format(body: CountTokensRequest) -> _Placed:
    """The format of the answer, and where it stands; 400 if it stands in both places."""
    format = (body.output_config or OutputConfig()).format
    if not body.output_format:
        return "output_config.format", format
    if format:
        raise bad_request(
            "output_format: is the earlier name of output_config.format, which is given too; "
            "leave output_format out.",
            "output_format",
        )
    return "output_format", body.output_format


def _response_format(place: str, given: dict[str, Any] | None) -> dict[str, Any] | None:
    if not given or given.get("type") != "json_schema":
        return given
    if given.get("schema") is None:
        raise no_schema(f"{place}.schema")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": given["schema"]}}
