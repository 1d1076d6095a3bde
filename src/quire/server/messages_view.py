"""The message of Anthropic's API: its head, its blocks, its end and its usage."""

from __future__ import annotations

import contextlib
from typing import Any

from pydantic_core import from_json

from quire.chat_calls import arguments_object
from quire.outputs import CompletionOutput
from quire.reasoning import Reasoning
from quire.server.answer_form import Answer, ToolCall
from quire.server.errors import bad_request, broken_off
from quire.server.intake import Started
from quire.server.state import Phase, ServerState
from quire.server.usage import Usage
from quire.tools import Content
from quire.tools.json_text import loaded

Json = dict[str, Any]

# On every block of thoughts: clients drop or rewrite thoughts without a signature when they send
# them back. It is no signature (base64 of "quire") and proves nothing: thoughts that come back are
# taken whatever theirs is.
SIGNATURE = "cXVpcmU="


class MessageView:
    """The answer to one request."""

    def __init__(self, state: ServerState, started: Started) -> None:
        self.form = started.form
        self._state = state
        self._usage = started.generation.usage
        self._id = f"msg_{started.request_id}"
        self._model = started.model

    def begun(self) -> Json:
        """The message at its start, without content."""
        return self._message([], {"stop_reason": None, "stop_sequence": None})

    def whole(self, one: CompletionOutput) -> Json:
        answer = self.form.read(one.text)
        blocks = [_block(part) for part in answer.parts]
        if not blocks and self.form.has_text:
            blocks = [text_block("")]
        return self._message(blocks, self.end(one, answer))

    def end(self, one: CompletionOutput, answer: Answer) -> Json:
        """The stop reason; an aborted answer is an error, since this API has no reason for it."""
        if one.finish_reason == "abort":
            if self._state.phase is Phase.DRAINING:
                raise broken_off()
            raise bad_request("The request was cancelled before its answer was complete.")
        if one.finish_reason == "stop" and isinstance(one.stop_reason, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": one.stop_reason}
        reason = "end_turn" if one.finish_reason == "stop" else "max_tokens"
        if reason == "end_turn" and answer.calls:
            reason = "tool_use"
        max_model_len = self._state.require_models().max_model_len
        if reason == "max_tokens" and self._usage.total_tokens >= max_model_len:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": None}

    @property
    def usage(self) -> Json:
        """The token counts so far."""
        return usage_dict(self._usage)

    def _message(self, content: list[Json], end: Json) -> Json:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            **end,
            "usage": self.usage,
        }


def text_block(text: str) -> Json:
    return {"type": "text", "text": text}


def thinking_block(text: str, signature: str) -> Json:
    return {"type": "thinking", "thinking": text, "signature": signature}


def tool_block(id: str, name: str, arguments: Json) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def call_input(arguments: str) -> Json:
    """The arguments of a call as clients load them from a stream: of an object that is cut off, the
    fields so far."""
    if arguments.lstrip().startswith("{") and loaded(arguments) is None:
        with contextlib.suppress(ValueError):
            found: Json = from_json(arguments, allow_partial=True)
            return found
    return arguments_object(arguments)


def usage_dict(usage: Usage) -> Json:
    """The usage under this API's names; its input tokens exclude cached ones."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


def _block(part: Reasoning | Content | ToolCall) -> Json:
    if isinstance(part, ToolCall):
        return tool_block(part.id, part.name, call_input(part.arguments))
    if isinstance(part, Reasoning):
        return thinking_block(part.text, SIGNATURE)
    return text_block(part.text)
