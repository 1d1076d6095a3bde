"""The access log: one line for each HTTP request, when it has ended. Knows no route."""

from __future__ import annotations

import logging
from collections.abc import Collection
from urllib.parse import quote

from quire.server.error_responses import route_path
from quire.server.guard import Scope

logger = logging.getLogger("quire.access")  # `log.setup_http` sets its level


class AccessLog:
    """Logs requests if it is on, except those for the paths in ``quiet``."""

    def __init__(self, *, is_on: bool, quiet: Collection[str] = ()) -> None:
        self._is_on = is_on
        self._quiet = frozenset(quiet)

    def ended(self, scope: Scope, status: int, seconds: float) -> None:
        """A response has gone out, or its client has left (status 499)."""
        if not self._is_on or route_path(scope) in self._quiet:
            return
        host, port = scope.get("client") or ("", 0)  # none at a Unix socket
        client, path = f"{host}:{port}" if host else "", _path_with_query(scope)
        logger.info(
            '%s - "%s %s HTTP/%s" %d %.3f s',
            client,
            scope["method"],
            path,
            scope["http_version"],
            status,
            seconds,
            extra={
                "fields": {
                    "client": client,
                    "method": scope["method"],
                    "path": path,
                    "status": status,
                    "seconds": round(seconds, 6),
                }
            },
        )


def _path_with_query(scope: Scope) -> str:
    path, query = quote(scope["path"]), scope["query_string"]
    return f"{path}?{query.decode('ascii', 'backslashreplace')}" if query else path
