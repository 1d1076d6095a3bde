"""uvicorn's httptools protocol with the limits that it lacks: on the size of a request's head, and
on how long a client may send nothing of its request, or read nothing of its answer. What is no
request is refused after the answers to those before it.

It also serves requests that offer an upgrade as plain HTTP, ends all requests of a client that
disconnects, and answers HTTP/1.0 without chunks. Bodies are limited by the guard, which sees a
request only once its head is complete.
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

from quire.server import request_ids
from quire.server.error_responses import error_payload
from quire.server.errors import HTTPError, bad_request

Send = Callable[[Any], Awaitable[None]]  # of ASGI's messages, which uvicorn types its own way

MAX_HEAD_BYTES = 64 * 1024
READ_TIMEOUT_S = 60.0
MIN_BODY_BYTES_S = 64 * 1024
_CODED = (
    "The header Transfer-Encoding has a coding other than chunked, which is not supported; send "
    "the body without it."
)
_TOO_LARGE = (
    f"The head of the request is larger than {MAX_HEAD_BYTES} bytes; shorten its URL or headers."
)
_NO_HOST = "The header Host is missing, which HTTP/1.1 requires; send one."
WRITE_TIMEOUT_S = 60.0
_MAX_WAITING = 8  # pipelined requests behind a running one; with more, reading pauses
_GOODBYE_S = 1.0  # for TLS clients to close when the server shuts down
_CHUNKS_SINCE = "1.1"  # HTTP version


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    The connection is dropped if a head is not complete ``read_timeout_s`` after it, or the
    connection, began; if nothing more of a body comes for that long; or if, after that long, a body
    comes at less than ``min_body_bytes_s`` on average.

    Writers wait while the socket accepts nothing. After ``write_timeout_s`` of that the connection
    is dropped, which ends the request as if the client had disconnected; a slow reader may stay.

    A client may pipeline requests. Only reading shows that it has disconnected, so reading pauses
    no sooner than when ``_MAX_WAITING`` requests, or a large body, are waiting.
    """

    read_timeout_s = READ_TIMEOUT_S
    min_body_bytes_s = MIN_BODY_BYTES_S
    write_timeout_s = WRITE_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._num_head_bytes = 0  # received after the packet in which the head began
        self._is_in_body = False  # of `cycle`
        self._refusal: bytes | None = None  # the connection's last answer, until its turn has come
        self.url = b""
        self._num_body_bytes = 0
        self._body_began = 0.0  # event-loop time
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._unanswered: list[RequestResponseCycle] = []  # pruned at each new request
        self._app = self.app
        self.app = self._answer

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_more()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._refusal is not None:
            return  # nobody can tell where the next request begins
        self._num_head_bytes += len(data)
        try:
            self._parse(data)
        except httptools.HttpParserError as error:
            why = error.__context__ or error  # a callback's own error
            known = why if isinstance(why, HTTPError) else None
            self._refuse(known or bad_request(f"The request cannot be read: {why}."))
            return
        is_too_large = self._is_in_head and self._num_head_bytes > MAX_HEAD_BYTES
        if is_too_large and not self.transport.is_closing():
            self.send_400_response(_TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._is_in_body = True, False
        self._num_head_bytes = self._num_body_bytes = 0
        self._expect_more()

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > (
            MAX_HEAD_BYTES
        ):
            raise bad_request(_TOO_LARGE)  # stops the parser
        if not _is_chunked_at_most(self.headers):
            raise HTTPError(501, _CODED, "NotImplementedError")
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":  # what follows is not HTTP
                raise ValueError("this server is not a proxy")
            return  # `_parse` parses the head again, without the upgrade
        if self.parser.get_http_version() == "1.1" and b"host" not in dict(self.headers):
            raise bad_request(_NO_HOST)  # as RFC 9112 (3.2) demands
        self._body_began = self.loop.time()
        self._expect_more()
        was_reading = not self.flow.read_paused
        super().on_headers_complete()
        self._is_in_body = True
        self._unanswered = [one for one in self._unanswered if not one.response_complete]
        self._unanswered.append(self.cycle)
        if was_reading and len(self.pipeline) <= _MAX_WAITING:
            self.flow.resume_reading()

    def send_400_response(self, msg: str) -> None:
        self._refuse(bad_request(msg))

    def _refuse(self, error: HTTPError) -> None:
        """Answer a request that the application cannot, after those before it, and close the
        connection."""
        request_id = request_ids.from_header(dict(self.headers).get(request_ids.HEADER.encode()))
        self.logger.warning("Invalid HTTP request received (%s): %s", request_id, error.message)
        self._expect_nothing()
        self._refusal = self._refusal_of(error, request_id)
        if self._is_in_body:
            self._drop_last()
        self._send_refusal()

    def _refusal_of(self, error: HTTPError, request_id: str) -> bytes:
        path = self.url.decode("latin-1")
        body = msgspec.json.encode(error_payload(path, error, request_id, self.headers))
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *request_ids.answer_headers(path, self.headers, request_id),
        ]
        lines = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])

    def _drop_last(self) -> None:
        """End the last request, whose body is invalid; if it has an answer, it gets no other."""
        if self.cycle.response_started:
            self._refusal = b""
        if self.pipeline and self.pipeline[0][0] is self.cycle:
            self.pipeline.popleft()
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _send_refusal(self) -> None:
        """Refuse and close, once all requests before are answered (RFC 9112, 9.3.2)."""
        waits = any(not (one.response_complete or one.disconnected) for one in self._unanswered)
        if self._refusal is None or waits or self.transport.is_closing():
            return
        self.transport.write(self._refusal)
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
        self._is_in_body = False
        self._expect_nothing()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._send_refusal()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._end_watch()
        super().resume_writing()

    def shutdown(self) -> None:
        super().shutdown()
        if self.scheme == "https" and self.transport.is_closing():
            self._expect_more(_GOODBYE_S)  # TLS itself would wait longer for idle clients

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._end_watch()
        for cycle in self._unanswered:
            cycle.disconnected = True
            cycle.message_event.set()
        self.app = self._app  # breaks a reference cycle, so that the connection is freed
        super().connection_lost(exc)

    def _parse(self, data: bytes | memoryview) -> None:
        """Parse what came, and ignore every offer to upgrade, as RFC 9110 (7.8) allows.

        The parser cannot ignore one: it takes what follows the head for the other protocol. So a
        new parser gets the head without the offer, and then what followed it.
        """
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                num_parsed = offer.args[0]
            # Not in the `except`: it would become the context of the parser's next error.
            head = self._head_without_offer()
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
            self.parser.feed_data(head)
            data = memoryview(data)[num_parsed:]

    def _head_without_offer(self) -> bytes:
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application; before HTTP/1.1 an answer without a length is not chunked, but ends
        with the connection (RFC 9112, 6.1)."""
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
        """Drop the connection if it still has to write ``num_bytes`` or more; else watch on."""
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
    """The cycle's ``send`` without chunked encoding, and without a check of lengths."""
    cycle.keep_alive = False

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            cycle.chunked_encoding = False
        cycle.expected_content_length = len(message.get("body", b""))
        await cycle.send(message)

    return send
