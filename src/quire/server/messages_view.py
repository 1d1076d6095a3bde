"""The message of Anthropic's API: its head, its end and its usage."""

from __future__ import annotations

from typing import Any

from quire.outputs import CompletionOutput
from quire.server.intake import Started
from quire.server.usage import Usage

Json = dict[str, Any]


class MessageView:
    """The answer to one request."""

    def __init__(self, started: Started, max_model_len: int) -> None:
        self._usage = started.generation.usage
        self._max_model_len = max_model_len
        self._id = f"msg_{started.request_id}"
        self._model = started.model

    def begun(self) -> Json:
        """Without content."""
        return self._message([], {"stop_reason": None, "stop_sequence": None})

    def whole(self, one: CompletionOutput) -> Json:
        return self._message([text_block(one.text)], self.end(one))

    def end(self, one: CompletionOutput) -> Json:
        """Why it has stopped."""
        if one.finish_reason == "stop" and isinstance(one.stop_reason, str):
            return {"stop_reason": "stop_sequence", "stop_sequence": one.stop_reason}
        reason = "end_turn" if one.finish_reason == "stop" else "max_tokens"
        if reason == "max_tokens" and self._usage.total_tokens >= self._max_model_len:
            reason = "model_context_window_exceeded"
        return {"stop_reason": reason, "stop_sequence": None}

    @property
    def usage(self) -> Json:
        """So far."""
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
    return {"type": "text", "text": text, "citations": None}


def usage_dict(usage: Usage) -> Json:
    """With the names of this API, whose input tokens are only those that were not cached."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
