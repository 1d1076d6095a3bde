"""The events of an Anthropic stream, as outputs come from the engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from quire.outputs import CompletionOutput
from quire.server.error_responses import error_payload
from quire.server.errors import HTTPError
from quire.server.generation import Generation
from quire.server.messages_view import MessageView, text_block
from quire.server.sse import event


async def message_events(generation: Generation, view: MessageView) -> AsyncGenerator[bytes, None]:
    """A message with one block of text, which grows."""
    last: CompletionOutput | None = None
    async with contextlib.aclosing(generation.outputs()) as outputs:
        async for _, output in outputs:
            # The start leaves with the first output: until then an error has a status.
            data = _start(view) if last is None else b""
            for last in output.outputs:
                if last.text:  # not half a character, or what may be a stop string's start
                    delta = {"type": "text_delta", "text": last.text}
                    data += _event("content_block_delta", index=0, delta=delta)
            if data:
                yield data
    assert last is not None
    yield (
        _event("content_block_stop", index=0)
        + _event("message_delta", delta=view.end(last), usage=view.usage)
        + _event("message_stop")
    )


def error_event(path: str, error: HTTPError) -> bytes:
    """The end of a stream that cannot go on."""
    return b"event: error\n" + event(error_payload(path, error))


def _start(view: MessageView) -> bytes:
    return (
        _event("message_start", message=view.begun())
        + _event("content_block_start", index=0, content_block=text_block(""))
        + _event("ping")
    )


def _event(kind: str, **content: Any) -> bytes:
    return b"event: %b\n%b" % (kind.encode(), event({"type": kind, **content}))
