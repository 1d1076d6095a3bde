"""Checks that every request passes before a route sees it: Host, Origin, API key, size and content
type of the body. It also assigns the request id.

Plain ASGI, so that it costs a stream nothing for each event. The only paths it knows are those that
need no key or no Host; whether a path exists is up to the routes.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.routing import Match

from quire.server import request_ids
from quire.server.error_responses import as_http_error, error_response, route_path
from quire.server.errors import HTTPError, bad_request, too_many

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# For load balancers and orchestrators, which have no key, and call the server by its address: any
# Host will do. None of them reveals anything.
PROBES = frozenset({"/health", "/livez", "/readyz", "/startupz", "/ping"})
OPEN_PATHS = PROBES | {"/"}  # paths without a key
OPEN_PREFIX = "/page/"  # the page's own files
_REQUEST_ID = request_ids.HEADER.encode()
# Headers that may be sent only once: proxies and servers differ about which of several counts.
_ONCE = (b"authorization", b"x-api-key", b"content-type", b"content-length", b"host")
_POLICY_VIOLATION = 1008  # WebSocket close code
_WITH_BODY = ("POST", "PUT", "PATCH")
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_BODIES_AT_ONCE = 16  # of the largest size; more smaller ones
_SMALL_BODY = 64 * 1024  # bytes; up to this size a body needs no room


class Guard:
    """The outermost middleware, except for metrics (`Observed`) and CORS."""

    def __init__(
        self,
        app: App,
        *,
        keys: Sequence[str],
        max_body_bytes: int,
        hosts: frozenset[str] | None = None,
    ) -> None:
        """``hosts`` are those of `allowed_hosts`; None: any."""
        self._app = app
        self._keys = [key.encode() for key in keys]
        self._max_body_bytes = max_body_bytes
        self._hosts = hosts
        self._room = _Room(_BODIES_AT_ONCE * max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = request_ids.from_header(headers.get(_REQUEST_ID))
        exchange = _Exchange(scope, receive, send, self._max_body_bytes, self._room)
        state["body_is_read"] = exchange.body_is_read
        state["arrived"] = asyncio.get_running_loop().time()
        try:
            _check_once(scope)
            self._check_host(scope, headers)
            _check_origin(scope, headers)
            self._check_key(scope, headers)
            self._check_body(scope, headers)
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            pass  # nobody to answer, unless we cut the connection because of a too large body
        except Exception as error:
            if exchange.has_answered:
                raise  # too late for an error response: the connection is closed
            answer = error_response(route_path(scope), as_http_error(error))
            await answer(scope, receive, exchange.send)
            return
        finally:
            exchange.body_is_read()
        if exchange.is_too_large and not exchange.has_answered:
            too_large = BodyTooLarge(self._max_body_bytes)
            exchange.is_too_large = False
            await error_response(route_path(scope), too_large)(scope, receive, exchange.send)

    def _check_host(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """403 for a Host that is not allowed, against DNS rebinding: a page's own name may resolve
        to this machine, and its browser then treats the server as the page's own origin. Browsers
        always send a Host; requests without one pass, and probes, which send an address."""
        given = headers.get(b"host")
        if self._hosts is None or given is None or _without_port(given) in self._hosts:
            return
        if route_path(scope) in PROBES:
            return
        raise HTTPError(
            403,
            f"Host header {given.decode('latin-1')[:100]!r} is not allowed; use localhost, or "
            "allow the name with --allowed-hosts.",
            "PermissionDeniedError",
        )

    def _check_key(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if not self._keys or is_open(route_path(scope)):
            return
        given = [headers.get(b"x-api-key", b"")]
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given.append(token.strip())
        matches = [hmac.compare_digest(one, key) for key in self._keys for one in given]  # all
        if not any(matches):
            raise HTTPError(
                401,
                "The API key is missing or wrong; send it as 'Authorization: Bearer KEY' or "
                "'x-api-key: KEY'.",
                "AuthenticationError",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _check_body(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        if scope["method"] not in _WITH_BODY:
            return
        length = headers.get(b"content-length", b"0")
        if not length.isdigit():
            raise bad_request(f"Content-Length must be a number, got {length[:40]!r}.")
        if int(length) > self._max_body_bytes:
            raise BodyTooLarge(self._max_body_bytes)
        has_body = int(length) > 0 or b"transfer-encoding" in headers
        error = _fault_of_kind(headers) if has_body else None
        if error is not None and _is_route(scope):  # else it is 404 or 405, whatever the body
            raise error


class BodyTooLarge(HTTPError):
    """More bytes than the server reads."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            413,
            f"The body of the request is larger than {limit} bytes; send less, or start the "
            "server with a larger --max-request-body-size.",
            "RequestTooLargeError",
        )


class _Room:
    """The bytes of all bodies that are being read and parsed, and their limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._num_bytes = 0

    def take(self, num_bytes: int) -> None:
        if self._num_bytes + num_bytes > self._limit:
            raise too_many(
                f"The server is already reading {self._num_bytes} bytes of requests, and the limit "
                f"is {self._limit} at once; try again later.",
                "bodies_full",
            )
        self._num_bytes += num_bytes

    def give_back(self, num_bytes: int) -> None:
        self._num_bytes -= num_bytes


class _Exchange:
    """Wraps one request's ``receive`` and ``send``: counts the bytes of the body, which need not
    have a Content-Length, and adds the request id to the headers of the answer."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        max_body_bytes: int,
        room: _Room,
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._max_body_bytes = max_body_bytes
        self._num_bytes = 0
        self._room = room
        self._num_held = 0  # bytes taken from the room
        self.is_too_large = False  # then the application's own answer is not sent
        self.has_answered = False

    async def receive(self) -> Message:
        if self.is_too_large:
            return {"type": "http.disconnect"}
        message = await self._receive()
        size = len(message.get("body", b""))
        self._num_bytes += size
        if self._num_bytes > self._max_body_bytes:
            self.is_too_large = True
            return {"type": "http.disconnect"}
        if size and self._num_bytes > _SMALL_BODY:
            self._room.take(self._num_bytes - self._num_held)
            self._num_held = self._num_bytes
        return message

    def body_is_read(self) -> None:
        """Give the room back; from here on the limit of the queue applies."""
        self._room.give_back(self._num_held)
        self._num_held = 0

    async def send(self, message: Message) -> None:
        if self.is_too_large and not self.has_answered:
            return
        if message["type"] == "http.response.start":
            self.has_answered = True
            message["headers"] = [*message.get("headers", ()), *self._id_headers()]
        await self._send(message)

    def _id_headers(self) -> list[tuple[bytes, bytes]]:
        scope = self._scope
        request_id = scope["state"]["request_id"]  # now, since the body may have changed it
        return request_ids.answer_headers(route_path(scope), scope["headers"], request_id)


def allowed_hosts(address: str, names: Sequence[str], has_keys: bool) -> frozenset[str] | None:
    """The names that the header Host may have, for a server at a TCP address; None: any. ``names``
    are those of --allowed-hosts."""
    if "*" in names or (not names and (has_keys or not _is_loopback(address))):
        return None
    own = f"[{address}]" if ":" in address else address
    return frozenset(name.lower() for name in (*_LOCAL_HOSTS, own, *names))


def _is_loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _without_port(host: bytes) -> str:
    name, colon, port = host.decode("latin-1").strip().lower().rpartition(":")
    return name if colon and port.isdigit() else name + colon + port


def is_open(path: str) -> bool:
    """Whether a path needs no key."""
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


def _check_once(scope: Scope) -> None:
    names = [name for name, _ in scope["headers"] if name in _ONCE]
    for name in names:
        if names.count(name) > 1:
            raise bad_request(f"The header {name.decode()} was sent more than once; send one.")


def _check_origin(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """403 for a cross-site request whose body is not JSON, which browsers send as they send a form:
    without a CORS preflight. A JSON body has passed one."""
    is_json = _media_type(headers) == b"application/json"
    if scope["method"] in _WITH_BODY and not is_json and _is_cross_site(headers):
        raise HTTPError(
            403,
            "A page of another site may only send JSON; send the header 'Content-Type: "
            "application/json', and allow the site with --allowed-origins.",
            "PermissionDeniedError",
        )


def _is_cross_site(headers: dict[bytes, bytes]) -> bool:
    """Whether a page of another site sent this: by Sec-Fetch-Site, or in older browsers by Origin.
    Other clients send neither."""
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        return site not in (b"same-origin", b"none")
    origin = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2] != headers.get(b"host")


def _is_route(scope: Scope) -> bool:
    """Whether a route has the request's path and method."""
    return any(route.matches(scope)[0] is Match.FULL for route in scope["app"].router.routes)


def _fault_of_kind(headers: dict[bytes, bytes]) -> HTTPError | None:
    """415 if the headers say that the body is not plain JSON, else None."""
    if _media_type(headers) != b"application/json":
        return HTTPError(
            415,
            "Unsupported Media Type: Only 'application/json' is allowed; send the header "
            "'Content-Type: application/json'.",
            "UnsupportedMediaTypeError",
        )
    encoding = headers.get(b"content-encoding", b"").strip().lower()
    if encoding in (b"", b"identity"):
        return None
    return HTTPError(
        415,
        f"Content-Encoding {encoding.decode('latin-1')[:40]!r} is not supported; send the JSON "
        "without compression, and leave the header out.",
        "UnsupportedMediaTypeError",
        headers={"Accept-Encoding": "identity"},
    )


def _media_type(headers: dict[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
