"""The application: routes, error handlers and the layers around them, put together once."""

from __future__ import annotations

import importlib
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

import quire
from quire.server import (
    chat,
    completions,
    health,
    info,
    messages,
    metrics_route,
    models,
    page,
    requests_api,
    responses,
    tokens,
)
from quire.server.args import ServerArgs
from quire.server.error_responses import install_error_handlers
from quire.server.guard import Guard, allowed_hosts
from quire.server.keys import all_keys
from quire.server.observed import Observed
from quire.server.openapi import make_true
from quire.server.state import ServerState
from quire.sizes import parse_bytes

# Looked through in this order: what is asked most comes first.
ROUTERS = (
    *(chat.router, completions.router, responses.router, messages.router),
    *(health.router, models.router, requests_api.router, tokens.router),
    *(metrics_route.router, info.router, page.router),
)

# What a page of another site may read of an answer, beside what browsers let every page read.
_OWN_HEADERS = ("X-Request-Id", "Request-Id", "Retry-After", "X-Quire-Ignored")


def build_app(state: ServerState) -> FastAPI:
    """The ASGI application of a server; it answers from now on, whatever the engine does."""
    args = state.args
    app = _Application(
        title="Quire",
        version=quire.__version__,
        docs_url=None if args.disable_fastapi_docs else "/docs",
        redoc_url=None,
        openapi_url=None if args.disable_fastapi_docs else "/openapi.json",
        middleware=[Middleware(Observed, http=state.watch.metrics.http), *layers(args)],
    )
    app.state.quire = state
    # The application's, not the protocol's: then a proxy may leave the prefix where it is.
    app.root_path = args.root_path.rstrip("/")
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


class _Application(FastAPI):
    """Its description of itself is true."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            args: ServerArgs = self.state.quire.args
            self.openapi_schema = make_true(
                super().openapi(),
                has_keys=bool(all_keys(args)),
                strict_fields=args.strict_fields == "error",
            )
        return self.openapi_schema


def layers(args: ServerArgs) -> list[Middleware]:
    """What a request passes before its route, from the outside in; ``ValueError`` for arguments
    that cannot be used."""
    keys = all_keys(args)
    hosts = None if args.uds else allowed_hosts(args.host, args.allowed_hosts, bool(keys))
    result = [
        Middleware(
            Guard,
            keys=keys,
            max_body_bytes=parse_bytes(args.max_request_body_size),
            hosts=hosts,
        )
    ]
    if args.allowed_origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=list(args.allowed_origins),
            allow_methods=list(args.allowed_methods),
            allow_headers=list(args.allowed_headers),
            allow_credentials=args.allow_credentials,
            expose_headers=_OWN_HEADERS,
        )
        result.insert(0, cors)  # its headers belong on refusals too
    return result + [Middleware(_import(name)) for name in args.middleware]


def _import(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"--middleware {name}: {error}; give the import path of an ASGI middleware class"
        ) from error
