"""A Responses request as a chat request: its items become messages.

Owns which types of items are allowed; others, and what needs stored state, are refused by name.
"""

from __future__ import annotations

from typing import Any

from quire.server.answer_form import AnswerForm
from quire.server.errors import bad_request, no_schema
from quire.server.protocol.responses import InputTokensRequest, ResponsesRequest, TextConfig
from quire.server.responses_thoughts import decoded_thought
from quire.server.responses_tools import ResponseTools, chat_name
from quire.server.text_parts import ChatContent, kind_of, not_served, string_at, text_content
from quire.shown import shown

# Fields of the chat request -> their names in this API.
_NAMES = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "verbosity": "text.verbosity",
    "reasoning_effort": "reasoning.effort",
}
_ROLES = ("user", "assistant", "system", "developer")
_TEXT_KEYS = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}
_STATELESS = "the server keeps no state; send the whole conversation as input"


def chat_fields(body: ResponsesRequest) -> dict[str, Any]:
    """The request as fields of a chat request."""
    _refuse_stored(body)
    return {
        **body.sampling_fields(),
        **prompt_fields(body),
        "max_tokens": body.max_output_tokens,
        "stop": body.stop,
        "structured_outputs": body.structured_outputs,
        "include_reasoning": body.include_reasoning,
        "logprobs": body.wants_logprobs,
        "top_logprobs": body.top_logprobs,
    }


def names(body: InputTokensRequest) -> dict[str, str]:
    """Fields of the chat request -> their names in this API, for errors."""
    return {**_NAMES, **ResponseTools(body.tools).places}


def check_logprobs(body: ResponsesRequest, form: AnswerForm) -> None:
    """400 for logprobs beside tools or reasoning, which could not be assigned to items."""
    if body.wants_logprobs and not form.is_plain:
        raise bad_request(
            "logprobs cannot be returned here together with tools or reasoning, since they belong "
            "to no single item; use /v1/chat/completions, or leave them out.",
            "include",
        )


def prompt_fields(body: InputTokensRequest) -> dict[str, Any]:
    """The chat fields that the prompt depends on: messages, tools, output format and effort."""
    for name in ("previous_response_id", "conversation"):
        if getattr(body, name) is not None:
            raise bad_request(f"{name} is not supported: {_STATELESS}.", name)
    described = ResponseTools(body.tools)
    tools, choice = described.in_chat, described.choice(body.tool_choice)
    text = body.text or TextConfig()
    return {
        "messages": _messages(body),
        "tools": tools or None,
        "tool_choice": None if choice == "auto" and not tools else choice,
        "chat_template_kwargs": body.chat_template_kwargs,
        "response_format": _response_format(text.format),
        "verbosity": text.verbosity,
        "parallel_tool_calls": body.parallel_tool_calls,
        "reasoning_effort": body.reasoning and body.reasoning.effort,
    }


def _refuse_stored(body: ResponsesRequest) -> None:
    if body.background:
        raise bad_request(
            "background is not supported: the server keeps no responses to be fetched later; "
            "leave it out, and use stream to see the answer grow.",
            "background",
        )
    if body.previous_input_messages:
        raise bad_request(
            f"previous_input_messages is not supported: {_STATELESS}.", "previous_input_messages"
        )
    if body.enable_response_messages:
        raise bad_request(
            "enable_response_messages is not supported: the prompt and its tokens are returned by "
            "/v1/chat/completions, with return_prompt_text and return_token_ids; leave it out.",
            "enable_response_messages",
        )
    if body.prompt is not None:
        raise bad_request(
            "prompt is not supported: the server stores no prompts; send the text as instructions "
            "and input.",
            "prompt",
        )


def _messages(body: InputTokensRequest) -> list[dict[str, Any]]:
    history = _History()
    if body.instructions is not None:
        history.messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        history.messages.append({"role": "user", "content": body.input})
    elif isinstance(body.input, list):
        for i, item in enumerate(body.input):
            history.add(item, f"input[{i}]")
    elif body.input is not None or isinstance(body, ResponsesRequest):
        raise bad_request(
            f"input: must be a string or a list of items, got {shown(body.input)}.", "input"
        )
    return history.messages


class _History:
    """The messages so far; text, reasoning and calls of one assistant turn are one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self._reasoning: list[str] = []  # of the assistant turn that follows

    def add(self, item: Any, place: str) -> None:
        kind = kind_of(item, place, default="message")
        readers = {
            "message": self._message,
            "function_call": self._function_call,
            "function_call_output": self._function_call_output,
            "reasoning": self._reasoning_item,
        }
        if kind == "item_reference":
            raise bad_request(
                f"{place}: an item_reference cannot be resolved: {_STATELESS}. Clients that send "
                "references send whole items if they set store to false.",
                place,
            )
        if kind not in readers:
            raise not_served(kind, readers, place)
        readers[kind](item, place)

    def _message(self, item: dict[str, Any], place: str) -> None:
        role = item.get("role")
        if role not in _ROLES:
            raise bad_request(
                f"{place}.role: must be one of {', '.join(_ROLES)}, got {shown(role)}.",
                f"{place}.role",
            )
        content = text_content(item.get("content"), _TEXT_KEYS, f"{place}.content")
        if role == "assistant":
            self._assistant(content)
        else:
            self._reasoning = []  # of a turn without text or calls
            self.messages.append({"role": role, "content": content})

    def _function_call(self, item: dict[str, Any], place: str) -> None:
        namespace = None
        if item.get("namespace") is not None:
            namespace = string_at(item, "namespace", place)
        call = {
            "id": string_at(item, "call_id", place),
            "type": "function",
            "function": {
                "name": chat_name(string_at(item, "name", place), namespace),
                "arguments": string_at(item, "arguments", place),
            },
        }
        if not self.messages or self.messages[-1]["role"] != "assistant" or self._reasoning:
            self._assistant(None)
        self.messages[-1].setdefault("tool_calls", []).append(call)

    def _function_call_output(self, item: dict[str, Any], place: str) -> None:
        output = text_content(item.get("output"), _TEXT_KEYS, f"{place}.output")
        call_id = string_at(item, "call_id", place)
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": output})

    def _reasoning_item(self, item: dict[str, Any], place: str) -> None:
        """Keep the item's text, or what `encrypted_content` decodes to; ignore its summary."""
        keys = {"reasoning_text": "text", "text": "text"}
        content = text_content(item.get("content") or [], keys, f"{place}.content")
        parts = [content] if isinstance(content, str) else [part["text"] for part in content]
        if not any(parts) and item.get("encrypted_content"):
            encoded = string_at(item, "encrypted_content", place)
            parts = [decoded_thought(encoded, f"{place}.encrypted_content")]
        self._reasoning += [part for part in parts if part]

    def _assistant(self, content: Any) -> None:
        last = self.messages[-1] if self.messages else {}
        if last.get("tool_calls") and not self._reasoning:  # the same turn, after its calls
            last["content"] = _both(last["content"], content)
            return
        message = {"role": "assistant", "content": content}
        if self._reasoning:
            message["reasoning"] = "\n".join(self._reasoning)
            self._reasoning = []
        self.messages.append(message)


def _both(first: ChatContent | None, second: ChatContent) -> ChatContent:
    """Two texts of one turn as one content."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    one, other = (
        [{"type": "text", "text": text}] if isinstance(text, str) else text
        for text in (first, second)
    )
    return one + other


def _response_format(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """``text.format`` as chat's ``response_format``, which nests the JSON schema deeper."""
    if not given or given.get("type") == "text":
        return None
    if given.get("type") != "json_schema":
        return given
    if given.get("schema") is None:
        raise no_schema("text.format.schema")
    schema = {key: value for key, value in given.items() if key != "type"}
    return {"type": "json_schema", "json_schema": schema}
