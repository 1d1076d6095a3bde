"""The events of an Anthropic stream, as outputs come from the engine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

from quire.chat_calls import arguments_object
from quire.outputs import CompletionOutput
from quire.reasoning import Reasoning
from quire.server.answer_form import Piece
from quire.server.error_responses import error_payload
from quire.server.errors import HTTPError
from quire.server.generation import Generation
from quire.server.messages_view import (
    SIGNATURE,
    MessageView,
    text_block,
    thinking_block,
    tool_block,
)
from quire.server.sse import event
from quire.tools import CallArguments, CallBegin, Content


async def message_events(generation: Generation, view: MessageView) -> AsyncGenerator[bytes, None]:
    """The events of one message, block after block: text, thoughts and tool calls."""
    last: CompletionOutput | None = None
    reader, blocks = view.form.reader(), _Blocks(view.form.has_text)
    async with contextlib.aclosing(generation.outputs()) as outputs:
        async for _, output in outputs:
            # Sent only with the first output: an error before it still has its own status.
            data = _start(view) if last is None else b""
            for last in output.outputs:
                data += b"".join(map(blocks.add, reader.feed(last.text)))
            if data:
                yield data
    assert last is not None
    data = b"".join(map(blocks.add, reader.finish()))
    yield (
        data
        + blocks.end()
        + _event("message_delta", delta=view.end(last, reader.answer), usage=view.usage)
        + _event("message_stop")
    )


def error_event(path: str, error: HTTPError, request_id: str | None = None) -> bytes:
    """The last event of a stream that has failed."""
    return b"event: error\n" + event(error_payload(path, error, request_id))


class _Blocks:
    """The blocks of one message; the last of them is open."""

    def __init__(self, has_text: bool) -> None:
        self._has_text = has_text
        self._num_blocks = 0
        self._kind = ""  # of the open block
        self._first = ""  # character of the open call's arguments that is no white space
        self._held: list[str] = []  # arguments that are not sent yet

    def add(self, piece: Piece) -> bytes:
        if isinstance(piece, CallBegin):
            return self._begin("tool_use", tool_block(piece.id or "", piece.name, {}))
        if isinstance(piece, CallArguments):
            return self._arguments(piece.json_fragment)
        if isinstance(piece, Reasoning):
            begin = self._begin_if_other("thinking", thinking_block("", ""))
            return begin + self._delta("thinking_delta", thinking=piece.text)
        if isinstance(piece, Content):
            begin = self._begin_if_other("text", text_block(""))
            return begin + self._delta("text_delta", text=piece.text)
        return b""

    def end(self) -> bytes:
        """Close the open block; if there was none and text is allowed, add an empty text block."""
        if self._num_blocks:
            return self._end_block()
        return self._begin("text", text_block("")) + self._end_block() if self._has_text else b""

    def _begin_if_other(self, kind: str, block: dict[str, Any]) -> bytes:
        return b"" if kind == self._kind else self._begin(kind, block)

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        end = self._end_block() if self._num_blocks else b""
        self._num_blocks += 1
        self._kind = kind
        return end + _event("content_block_start", index=self._num_blocks - 1, content_block=block)

    def _arguments(self, fragment: str) -> bytes:
        """The delta of an object; other arguments are held until they can be put into one."""
        self._first = self._first or fragment.lstrip()[:1]
        self._held.append(fragment)
        return self._held_delta("".join(self._held)) if self._first == "{" else b""

    def _held_delta(self, text: str) -> bytes:
        self._held = []
        return self._delta("input_json_delta", partial_json=text)

    def _delta(self, kind: str, **content: str) -> bytes:
        delta = {"type": kind, **content}
        return _event("content_block_delta", index=self._num_blocks - 1, delta=delta)

    def _end_block(self) -> bytes:
        data = b""
        if self._kind == "thinking":
            data = self._delta("signature_delta", signature=SIGNATURE)
        elif self._held:
            wrapped = arguments_object("".join(self._held))
            data = self._held_delta(json.dumps(wrapped, ensure_ascii=False))
        self._first = ""
        return data + _event("content_block_stop", index=self._num_blocks - 1)


def _start(view: MessageView) -> bytes:
    return _event("message_start", message=view.begun()) + _event("ping")


def _event(kind: str, **content: Any) -> bytes:
    return b"event: %b\n%b" % (kind.encode(), event({"type": kind, **content}))
