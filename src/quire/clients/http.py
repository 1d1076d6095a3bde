"""A small HTTP/1.1 client for asyncio, made for thousands of streams at once.

A body goes to its consumer from within the transport's callback: no task wakes up for an event.
Connections are kept and used again; proxies and redirects are not followed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import httptools

from quire import log
from quire.clients.address import GET_TIMEOUT_S, Address, CertificateError, ServerError

logger = logging.getLogger(__name__)

OnBody = Callable[[bytes], None]
_OK = 200


@dataclass(kw_only=True, slots=True)
class Reply:
    """An answer; of a stream that was consumed as it came, the body is empty."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""


class HTTPClient:
    """All connections to one server; `close` ends them."""

    def __init__(
        self, address: Address, headers: Mapping[str, str] | None = None, *, verify: bool = True
    ) -> None:
        self._address = address
        own = {"Host": address.authority, "Accept": "*/*", **(headers or {})}
        self._head = "".join(f"{name}: {value}\r\n" for name, value in own.items())
        self._tls = _tls_context(verify) if address.is_tls else None
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def get(self, path: str) -> Reply:
        """`ServerError` also when there is no answer for `GET_TIMEOUT_S`."""
        try:
            return await asyncio.wait_for(self._request("GET", path, b"", {}, None), GET_TIMEOUT_S)
        except asyncio.TimeoutError:
            raise ServerError(
                f"{self._address} has not answered GET {path} within {GET_TIMEOUT_S:g} s"
            ) from None

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        on_body: OnBody | None = None,
    ) -> Reply:
        """Send JSON. With ``on_body`` the pieces of a good answer go there as they arrive; what it
        raises ends the request. `ServerError` when the server cannot be reached or goes away."""
        return await self._request("POST", path, body, headers or {}, on_body)

    async def close(self) -> None:
        for connection in list(self._open):
            connection.close()
        while self._open:  # until the transports have said that they are closed
            await asyncio.sleep(0)

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes,
        headers: Mapping[str, str],
        on_body: OnBody | None,
    ) -> Reply:
        message = self._message(method, path, body, headers)
        while True:
            connection = await self._connection()
            was_used = connection.num_replies > 0
            try:
                return await connection.exchange(message, on_body)
            except _Unheard:
                if not was_used:
                    raise
                # The server had closed it before it saw the request: take another one.

    def _message(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        if method == "POST":
            more += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        line = f"{method} {self._address.prefix}{path} HTTP/1.1\r\n"
        return f"{line}{self._head}{more}\r\n".encode("latin-1") + body

    async def _connection(self) -> _Connection:
        if self._idle:
            return self._idle.pop()
        loop = asyncio.get_running_loop()
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._idle, self._open),
                self._address.host,
                self._address.port,
                ssl=self._tls,
            )
        except ssl.SSLCertVerificationError as error:
            raise CertificateError(
                f"{self._address} has a certificate that is not trusted: {error.verify_message}; "
                "set SSL_CERT_FILE to the file of its authority"
            ) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise ServerError(f"{self._address} cannot be reached: {reason}") from error
        return connection


def tell_of_proxy(address: Address) -> None:
    """Say that the proxy which the environment names for a server is not used."""
    scheme = "https" if address.is_tls else "http"
    has_proxy = scheme in urllib.request.getproxies()
    if has_proxy and not urllib.request.proxy_bypass(address.authority):
        log.setup()
        logger.warning(
            "%s_proxy is not used: requests go to %s directly; add its host to no_proxy",
            scheme,
            address,
        )


class _Unheard(ServerError):
    """The connection was closed before any byte of an answer."""


class _Connection(asyncio.Protocol):
    """One connection, one request at a time; puts itself among the idle ones after an answer."""

    def __init__(self, idle: list[_Connection], open_ones: set[_Connection]) -> None:
        self._idle = idle
        self._all_open = open_ones
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._done: asyncio.Future[Reply] | None = None
        self._on_body: OnBody | None = None
        self._reply: Reply | None = None  # from its headers on
        self._headers: dict[str, str] = {}
        self._pieces: list[bytes] = []
        self.num_replies = 0

    async def exchange(self, message: bytes, on_body: OnBody | None) -> Reply:
        if self._transport is None or self._transport.is_closing():
            raise _Unheard("the server closed the connection")
        self._done = asyncio.get_running_loop().create_future()
        self._on_body, self._reply = on_body, None
        self._headers, self._pieces = {}, []
        self._transport.write(message)
        try:
            return await self._done
        except BaseException:  # the next request must not read this one's answer
            self.close()
            raise

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # Callbacks of the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's have no base class
        self._all_open.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            cause = error.__context__ or error  # the parser wraps what a callback raises
            if isinstance(cause, httptools.HttpParserError):
                cause = ServerError(f"what the server sent is not HTTP: {cause}")
            self._fail(cause)

    def connection_lost(self, error: Exception | None) -> None:
        self._all_open.discard(self)
        if self in self._idle:
            self._idle.remove(self)
        if self._reply is not None and error is None and self._ends_with_the_connection():
            self._finish()
        elif self._reply is None:
            self._fail(_Unheard(f"the server closed the connection{_because(error)}"))
        else:
            self._fail(
                ServerError(
                    f"the server ended the connection in the middle of its answer{_because(error)}"
                )
            )

    # Callbacks of the parser.

    def on_message_begin(self) -> None:
        if self._done is None or self._done.done():  # such as 408, because nothing was asked
            raise ServerError("the server sent an answer to no request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= _OK:
            self._reply = Reply(status=status, headers=self._headers)

    def on_body(self, data: bytes) -> None:
        assert self._reply is not None
        if self._on_body is not None and self._reply.status == _OK:
            self._on_body(data)
        else:
            self._pieces.append(data)

    def on_message_complete(self) -> None:
        if self._reply is None:  # such as 103: the answer is still to come
            self._headers = {}
            return
        self.num_replies += 1
        if self._transport is not None and not self._transport.is_closing():
            if self._parser.should_keep_alive():
                self._idle.append(self)
            else:
                self._transport.close()
        self._finish()

    def _finish(self) -> None:
        assert self._reply is not None
        self._reply.body = b"".join(self._pieces)
        if self._done is not None and not self._done.done():
            self._done.set_result(self._reply)

    def _fail(self, error: BaseException) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(error)
        self.close()

    def _ends_with_the_connection(self) -> bool:
        """Whether the answer has no stated length, so that only closing the connection ends it."""
        return not {"content-length", "transfer-encoding"} & self._headers.keys()


def _because(error: Exception | None) -> str:
    return f": {error}" if error is not None else ""


def _tls_context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
