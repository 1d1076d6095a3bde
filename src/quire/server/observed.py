"""The outermost layer: counts, times and logs every HTTP response, and notes the trace it belongs
to.

Plain ASGI. Sees refusals of the guard too.
"""

from __future__ import annotations

import time

from starlette.routing import Match, Route

from quire.metrics.http_metrics import HTTPMetrics
from quire.metrics.tracing import HEADER_NAMES, TRACE_HEADERS
from quire.server.access_log import AccessLog
from quire.server.fields import IGNORED_HEADER
from quire.server.guard import App, Message, Receive, Scope, Send
from quire.server.unknown_paths import single_routes

_IGNORED = IGNORED_HEADER.lower().encode()
_CLIENT_LEFT = 499  # no response was begun
_METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Observed:
    """The outermost ASGI layer, around the guard and the routes."""

    def __init__(self, app: App, *, http: HTTPMetrics, access_log: AccessLog) -> None:
        self._app = app
        self._http = http
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _CLIENT_LEFT

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._note_ignored(message)
            await send(message)

        self._http.started()
        started = time.perf_counter()
        parent = TRACE_HEADERS.set(_trace_headers(scope))
        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500 if status == _CLIENT_LEFT else status
            raise
        finally:
            TRACE_HEADERS.reset(parent)
            seconds = time.perf_counter() - started
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._http.ended(_handler(scope), method, status, seconds)
            refusal = scope.get("state", {}).get("refusal")
            if refusal is not None:
                self._http.refused(refusal)
            self._access_log.ended(scope, status, seconds)

    def _note_ignored(self, message: Message) -> None:
        for name, value in message.get("headers", ()):
            if name.lower() == _IGNORED:
                self._http.fields_ignored(value.decode("latin-1").split(","))


def _handler(scope: Scope) -> str:
    """The route's path template as a label: clients cannot create metric series."""
    route = scope.get("route") or _route_asked_for(scope)
    return "none" if route is None else str(route.path)


def _route_asked_for(scope: Scope) -> Route | None:
    """The route of a request that did not get to it."""
    return next(
        (
            route
            for route in single_routes(scope["app"].routes)
            if isinstance(route, Route) and route.matches(scope)[0] is Match.FULL
        ),
        None,
    )


def _trace_headers(scope: Scope) -> dict[str, str] | None:
    found = {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in scope["headers"]
        if name.decode("latin-1") in HEADER_NAMES
    }
    return found or None
