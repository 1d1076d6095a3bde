"""The application: routes, error handlers and the layers around them, put together once."""

from __future__ import annotations

import importlib
import inspect
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

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
from quire.server.access_log import AccessLog
from quire.server.args import ServerArgs
from quire.server.error_responses import install_error_handlers, route_path
from quire.server.guard import Guard, allowed_hosts
from quire.server.keys import all_keys
from quire.server.observed import Observed
from quire.server.openapi import make_true
from quire.server.state import ServerState
from quire.sizes import parse_bytes


def _with_heads(router: APIRouter) -> APIRouter:
    """The router with HEAD wherever it has GET (RFC 9110, 9.1); uvicorn leaves the body out."""
    for route in list(router.routes):
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            router.add_api_route(
                route.path, route.endpoint, methods=["HEAD"], include_in_schema=False
            )
    return router


# Matched in this order: the most used routes first.
ROUTERS = tuple(
    _with_heads(router)
    for router in (
        *(chat.router, completions.router, responses.router, messages.router),
        *(health.router, models.router, requests_api.router, tokens.router),
        *(metrics_route.router, info.router, page.router),
    )
)

# Response headers that pages of other origins may read, besides those that CORS always exposes.
_OWN_HEADERS = ("X-Request-Id", "Request-Id", "Retry-After", "X-Quire-Ignored")


def build_app(state: ServerState) -> FastAPI:
    """The ASGI application of a server; it answers in every phase, also without an engine."""
    args = state.args
    app = _Application(
        title="Quire",
        version=quire.__version__,
        docs_url=None if args.disable_fastapi_docs else "/docs",
        redoc_url=None,
        openapi_url=None if args.disable_fastapi_docs else "/openapi.json",
        middleware=[
            Middleware(Observed, http=state.watch.metrics.http, access_log=_access_log(args)),
            *layers(args),
        ],
    )
    app.state.quire = state
    # Set here, not in uvicorn: then it works whether or not the proxy strips the prefix.
    app.root_path = args.root_path.rstrip("/")
    install_error_handlers(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


def _access_log(args: ServerArgs) -> AccessLog:
    return AccessLog(is_on=args.enable_access_log, quiet=args.disable_access_log_for_endpoints)


def make_layers(app: FastAPI) -> None:
    """Build the middleware now instead of at the first request; ``ValueError`` if that fails. Call
    it in the server's event loop, which some middleware needs."""
    app.middleware_stack = app.build_middleware_stack()


class _Application(FastAPI):
    """An application whose OpenAPI schema is corrected to what the server really does, and which
    takes paths with and without the prefix of its proxy."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.root_path and scope["type"] == "http":
            scope = {**scope, "root_path": self.root_path}
            if route_path(scope) == scope["path"]:  # the proxy has taken it off; redirects need it
                scope["path"] = self.root_path + scope["path"]
                if "raw_path" in scope:
                    scope["raw_path"] = quote(self.root_path).encode() + scope["raw_path"]
        await super().__call__(scope, receive, send)

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
    """The middleware before the routes, outermost first; ``ValueError`` for unusable arguments."""
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
        result.insert(0, cors)  # outermost: the guard's refusals need its headers too
    return result + [_middleware(name) for name in args.middleware]


def _middleware(name: str) -> Middleware:
    """Import one middleware: an ASGI class or factory that takes the inner application, or a
    coroutine function that takes ``(request, call_next)``."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
        if inspect.iscoroutinefunction(found):
            _must_take(found, "request", "call_next")
            return Middleware(BaseHTTPMiddleware, dispatch=found)
        _must_take(found, "app")
    except (ImportError, AttributeError, ValueError) as error:
        raise _unusable(name, str(error)) from error

    def make(app: ASGIApp) -> ASGIApp:
        try:
            made = found(app)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            raise ValueError(f"--middleware {name}: creating it failed: {why}") from error
        if not callable(made):
            raise _unusable(name, f"it returned a {type(made).__name__}, which is not callable")
        return made

    return Middleware(make)


def _must_take(found: Any, *arguments: str) -> None:
    try:
        inspect.signature(found).bind(*arguments)
    except TypeError as error:
        raise ValueError(f"it cannot be called with ({', '.join(arguments)}): {error}") from error
    except ValueError:  # compiled code need not have a signature
        pass


def _unusable(name: str, why: str) -> ValueError:
    return ValueError(
        f"--middleware {name}: {why}; give the import path of an ASGI middleware class, or of a "
        "coroutine function that takes (request, call_next)"
    )
