"""Server-sent events: a stream of them as an ASGI response, and chunks made of constant parts.

The status 200 is sent with the first event; a failure before it is an ordinary error. Silence is
filled with comments, and a client that leaves ends the generation. Knows nothing about what events
hold.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from quire.server.envelope import Envelope
from quire.server.error_responses import as_http_error, error_payload, error_response, route_path
from quire.server.errors import HTTPError
from quire.server.generation import Generation

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
# Some clients end a line at these too, as `str.splitlines` does; JSON escapes the others by itself.
_LINE_ENDS = tuple((end.encode(), b"\\u%04x" % ord(end)) for end in "\x85\u2028\u2029")

Events = AsyncGenerator[bytes, None]  # each one or several whole events
FailedEvent = Callable[[str, HTTPError], bytes]  # the end of a failed stream, for its path
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would wait for more
]


def encode(content: Any) -> bytes:
    """JSON in one line, whichever characters the client takes for line ends."""
    data = msgspec.json.encode(content)
    if not data.isascii():
        for end, escape in _LINE_ENDS:
            data = data.replace(end, escape)
    return data


def event(content: Any) -> bytes:
    """One event with JSON."""
    return b"data: " + encode(content) + b"\n\n"


def openai_error(path: str, error: HTTPError) -> bytes:
    """The end of a failed OpenAI stream."""
    return event(error_payload(path, error)) + DONE


class EventStream(Response):
    """Sends the events of one generation; ``error_event`` is the end of a stream that fails."""

    media_type = "text/event-stream"

    def __init__(
        self,
        generation: Generation,
        events: Events,
        *,
        keep_alive_s: float,
        headers: dict[str, str],
        error_event: FailedEvent = openai_error,
    ) -> None:
        self.status_code = 200
        self.background = None
        self._generation = generation
        self._events = events
        self._keep_alive_s = keep_alive_s
        self.raw_headers = [*_HEADERS, *((k.encode(), v.encode()) for k, v in headers.items())]
        self._error_event = error_event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(send, self.raw_headers)
        leaving = asyncio.create_task(leave_on_disconnect(receive, self._generation))
        silence = _Silence(self._keep_alive_s, body)
        try:
            async with contextlib.aclosing(self._events) as events:
                async for data in events:
                    if leaving.done() and not body.has_started:
                        raise ClientDisconnect  # before the status 200 is sent
                    await body.write(data)
        except ClientDisconnect:
            raise
        except Exception as error:
            await silence.ended()
            known = as_http_error(error)
            if not body.has_started:
                await error_response(route_path(scope), known)(scope, receive, send)
                return
            await body.write(self._error_event(route_path(scope), known))
        finally:
            silence.end()
            leaving.cancel()
            await self._generation.close()
        await body.end()


async def leave_on_disconnect(receive: Receive, generation: Generation) -> None:
    """Wait until the client disconnects, then end the generation."""
    while (await receive())["type"] != "http.disconnect":
        pass
    generation.leave()


class _Body:
    """The response so far; it starts with the first bytes."""

    def __init__(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        self._send: Callable[[MutableMapping[str, Any]], Awaitable[None]] = send
        self._headers = headers
        self.has_started = False
        self.num_writes = 0

    async def write(self, data: bytes) -> None:
        self.num_writes += 1
        if not self.has_started:
            self.has_started = True
            await self._send(
                {"type": "http.response.start", "status": 200, "headers": self._headers}
            )
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        if not self.has_started:
            await self.write(b"")
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _Silence:
    """Writes a comment after ``seconds`` without another write; costs nothing for each event."""

    def __init__(self, seconds: float, body: _Body) -> None:
        self._seconds = seconds
        self._body = body
        self._num_writes = 0
        self._writing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    async def ended(self) -> None:
        """Wait for a comment that is being written, and write no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            self._writing.cancel()

    def _wait(self) -> None:
        if self._seconds > 0:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._seconds, self._check)

    def _check(self) -> None:
        is_stuck = self._writing is not None and not self._writing.done()  # nobody reads
        is_silent = self._body.num_writes == self._num_writes and not is_stuck
        if is_silent:
            self._writing = asyncio.get_running_loop().create_task(self._body.write(KEEP_ALIVE))
        self._num_writes = self._body.num_writes + is_silent  # the comment itself does not count
        self._wait()


class Chunks:
    """The chunks of one OpenAI stream: what they share is encoded once."""

    def __init__(self, envelope: Envelope, kind: str) -> None:
        self._head = b"data: " + encode(envelope.head(kind))[:-1] + b',"choices":['
        self._fingerprint = b',"system_fingerprint":' + encode(envelope.fingerprint)

    def chunk(
        self,
        choice: bytes,
        *,
        usage: dict[str, Any] | None = None,
        is_last: bool = False,
        more: bytes = b"",
    ) -> bytes:
        """An event with one choice, or none."""
        tail = more
        if is_last:
            tail += self._fingerprint
        if usage is not None:
            tail += b',"usage":' + encode(usage)
        return self._head + choice + b"]" + tail + b"}\n\n"
