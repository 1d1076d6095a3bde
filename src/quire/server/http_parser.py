"""uvicorn's fast HTTP parser, with the limits that it lacks: on the head of a request, and on the
time for which a client sends nothing of its request, or takes nothing of its answer.

What it does besides: a request that offers another protocol is served all the same, all requests of
a client that leaves end, and HTTP/1.0 is answered without chunks. Bodies are limited by the guard,
which sees a request only when its head is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from quire.server.error_responses import error_payload
from quire.server.errors import HTTPError, bad_request

Send = Callable[[Any], Awaitable[None]]  # of ASGI's messages, which uvicorn types its own way

MAX_HEAD_BYTES = 64 * 1024
READ_TIMEOUT_S = 60.0
MIN_BODY_BYTES_S = 64 * 1024
_CODED = (
    "The header Transfer-Encoding has another coding than chunked, which is not undone; send the "
    "body as it is."
)
_TOO_LARGE = f"The head of the request is larger than {MAX_HEAD_BYTES} bytes."
WRITE_TIMEOUT_S = 60.0
_MAX_WAITING = 8  # requests behind one that runs, of a connection that is read on
_GOODBYE_S = 1.0  # for clients over TLS when the server ends
_CHUNKS_SINCE = "1.1"  # version of HTTP


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    A head must be there ``read_timeout_s`` after its begin, or after that of the connection, and
    more of a body as long after what came before; otherwise the connection is dropped. So is one
    whose body comes more slowly than ``MIN_BODY_BYTES_S``, after as long a time at its begin.

    While the socket takes nothing, whoever writes waits. Once it has taken nothing for
    ``write_timeout_s`` the connection is dropped, which ends the request as a client does that
    leaves; one that reads slowly stays.

    A client may send requests before it has the answers of earlier ones. That it has left is heard
    only by who reads on, so reading stops no sooner than ``_MAX_WAITING`` of them wait, or a large
    body.
    """

    read_timeout_s = READ_TIMEOUT_S
    min_body_bytes_s = MIN_BODY_BYTES_S
    write_timeout_s = WRITE_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._num_head_bytes = 0  # of what came since the packet in which it begins
        self._refusal: HTTPError | None = None  # of a head that the parser itself takes
        self.url = b""
        self._num_body_bytes = 0
        self._body_began = 0.0  # in the loop's seconds
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unanswered: list[RequestResponseCycle] = []  # looked through with each new one
        self._app = self.app
        self.app = self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_more()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._num_head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            why = error.__context__ or error  # a callback's own error
            self.logger.warning("Invalid HTTP request received: %s", why)
            self._refuse(self._refusal or bad_request(f"The request cannot be read: {why}."))
            return
        is_too_large = self._is_in_head and self._num_head_bytes > MAX_HEAD_BYTES
        if is_too_large and not self.transport.is_closing():
            self.send_400_response(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._num_head_bytes, self._num_body_bytes = True, 0, 0
        self._expect_more()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > (
            MAX_HEAD_BYTES
        ):
            self._refusal = bad_request(_TOO_LARGE)
            raise ValueError(_TOO_LARGE)  # to the parser, which ends there
        if not _is_chunked_at_most(self.headers):
            self._refusal = HTTPError(501, _CODED, "NotImplementedError")
            raise ValueError(_CODED)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":  # what follows is no HTTP
                raise ValueError("this server is no proxy")
            return  # `_parse` has it begin again
        self._body_began = self.loop.time()
        self._expect_more()
        was_reading = not self.flow.read_paused
        super().on_headers_complete()
        self._unanswered = [one for one in self._unanswered if not one.response_complete]
        self._unanswered.append(self.cycle)
        if was_reading and len(self.pipeline) <= _MAX_WAITING:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        self._refuse(bad_request(msg))

    def _refuse(self, error: HTTPError) -> None:
        """Answers what no application sees, and ends the connection."""
        payload = error_payload(self.url.decode("latin-1"), error, headers=self.headers)
        body = msgspec.json.encode(payload)
        own = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *own)]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        self.transport.close()

    def on_body(self, body: bytes) -> None:
        self._num_body_bytes += len(body)
        spent = self.loop.time() - self._body_began
        left = self.read_timeout_s + self._num_body_bytes / self.min_body_bytes_s - spent
        self._expect_more(min(left, self.read_timeout_s))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._expect_nothing()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._end_watch()
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        if self.scheme == "https" and self.transport.is_closing():
            self._expect_more(_GOODBYE_S)  # TLS would wait longer, and who idles does not listen

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._end_watch()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self.app = self._app  # otherwise only Python's collector would free the connection
        super().connection_lost(exc)

    def _parse(self, data: bytes | memoryview) -> None:
        """Every offer to go on with another protocol is ignored, as RFC 9110 (7.8) allows.

        The parser cannot do that: it takes what follows such a head for the other protocol. So
        another one reads the request from its begin, without the offer.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                head = self._head_without_offer()
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
                self.parser.feed_data(head)
                data = memoryview(data)[offer.args[0] :]

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The application; the end of an answer without length is the connection's before
        HTTP/1.1 (RFC 9112, 6.1)."""
        if scope["http_version"] < _CHUNKS_SINCE:
            cycle = next(one for one in self._unanswered if one.scope is scope)
            send = _without_chunks(cycle)
        await self._app(scope, receive, send)

    def _expect_more(self, within_s: float | None = None) -> None:
        self._expect_nothing()
        seconds = self.read_timeout_s if within_s is None else within_s
        self._read_timer = self.loop.call_later(seconds, self.transport.abort)

    def _expect_nothing(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _watch_writing(self, num_bytes: int) -> None:
        self._write_timer = self.loop.call_later(self.write_timeout_s, self._check, num_bytes)

    def _check(self, num_bytes: int) -> None:
        """Of the bytes that waited a while ago some must be gone."""
        left = self.transport.get_write_buffer_size()
        if left < num_bytes:
            self._watch_writing(left)
        else:
            self.transport.abort()

    def _end_watch(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _is_chunked_at_most(headers: list[tuple[bytes, bytes]]) -> bool:
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    return b",".join(codings).strip().lower() in (b"", b"chunked")


def _without_chunks(cycle: RequestResponseCycle) -> Send:
    """Its ``send``; lengths are not checked, for any is right."""
    cycle.keep_alive = False

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            cycle.chunked_encoding = False
        cycle.expected_content_length = len(message.get("body", b""))
        await cycle.send(message)

    return send
