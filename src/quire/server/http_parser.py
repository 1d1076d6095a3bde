"""uvicorn's fast HTTP parser, with the limits that it lacks: on the head of a request, and on the
time for which a client sends nothing of its request, or takes nothing of its answer.

Bodies are limited by the guard, which sees a request only when its head is there.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 64 * 1024
READ_TIMEOUT_S = 60.0
MIN_BODY_BYTES_S = 64 * 1024
_TOO_LARGE = f"The head of the request is larger than {MAX_HEAD_BYTES} bytes."
WRITE_TIMEOUT_S = 60.0


class HttpProtocol(HttpToolsProtocol):
    """One connection.

    A head must be there ``read_timeout_s`` after its begin, or after that of the connection, and
    more of a body as long after what came before; otherwise the connection is dropped. So is one
    whose body comes more slowly than ``MIN_BODY_BYTES_S``, after as long a time at its begin.

    While the socket takes nothing, whoever writes waits. Once it has taken nothing for
    ``write_timeout_s`` the connection is dropped, which ends the request as a client does that
    leaves; one that reads slowly stays.
    """

    read_timeout_s = READ_TIMEOUT_S
    min_body_bytes_s = MIN_BODY_BYTES_S
    write_timeout_s = WRITE_TIMEOUT_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._is_in_head = False
        self._num_head_bytes = 0  # as far as it has not ended
        self._is_too_large = False
        self._num_body_bytes = 0
        self._body_began = 0.0  # in the loop's seconds
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_more()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_in_head:
            self._num_head_bytes += len(data)
            if self._num_head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
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
            self._is_too_large = True
            raise ValueError(_TOO_LARGE)  # to the parser, which has it answered with 400
        self._body_began = self.loop.time()
        self._expect_more()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        super().send_400_response(_TOO_LARGE if self._is_too_large else msg)

    def on_body(self, body: bytes) -> None:
        self._num_body_bytes += len(body)
        spent = self.loop.time() - self._body_began
        left = self.read_timeout_s + self._num_body_bytes / self.min_body_bytes_s - spent
        self._expect_more(min(left, self.read_timeout_s))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._expect_nothing()
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._end_watch()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_nothing()
        self._end_watch()
        super().connection_lost(exc)

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
