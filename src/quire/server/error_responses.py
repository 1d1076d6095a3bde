"""Errors as HTTP responses, in the form that the client of a request expects."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping, Sequence
from typing import Any, TypeAlias

import msgspec
from fastapi import FastAPI, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from quire.errors import EngineDeadError
from quire.server.errors import HTTPError, PromptTooLong, internal
from quire.server.unknown_paths import why_not_with_method, why_unknown
from quire.shown import shown

logger = logging.getLogger(__name__)

_ANTHROPIC_PATHS = "/v1/messages"
_SHARED_PATH = "/v1/models"
_ANTHROPIC_VERSION = b"anthropic-version"
# Status -> the type in Anthropic's bodies, where it has one of its own.
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]  # of a request; names are in lower case

_MAX_VALIDATION_ERRORS = 10
_MAX_INPUT_CHARS = 200


def error_response(path: str, error: HTTPError) -> Response:
    """The answer to a request for ``path`` that ends in ``error``."""
    return _ErrorResponse(path, error)


def error_payload(
    path: str, error: HTTPError, request_id: str | None = None, headers: Headers = ()
) -> dict[str, Any]:
    """The error body, in Anthropic's form (with the request id) or OpenAI's."""
    if not is_anthropic(path, headers):
        return error.body()
    content: dict[str, Any] = {
        "type": _anthropic_type(error.status),
        "message": _anthropic_message(error),
    }
    if error.details is not None:
        content["details"] = error.details
    return {"type": "error", "error": content, "request_id": request_id}


def is_anthropic(path: str, headers: Headers) -> bool:
    """Whether a request uses Anthropic's API: by its path, or, for ``/v1/models``, which both APIs
    have, by the header ``anthropic-version``."""
    if not path.startswith(_SHARED_PATH):
        return path.startswith(_ANTHROPIC_PATHS)
    return any(name == _ANTHROPIC_VERSION for name, _ in headers)


def _anthropic_type(status: int) -> str:
    others = "invalid_request_error" if status < 500 else "api_error"
    return _ANTHROPIC_TYPES.get(status, others)


def _anthropic_message(error: HTTPError) -> str:
    """The message; if the prompt is too long, with the words on which clients cut their history."""
    if not isinstance(error, PromptTooLong):
        return error.message
    counts = f"{error.num_tokens} tokens > {error.most_tokens} maximum"
    return f"prompt is too long: {counts}. {error.message}"


class _ErrorResponse(Response):
    """Builds its body when it is sent: only then is the request id final."""

    def __init__(self, path: str, error: HTTPError) -> None:
        super().__init__(status_code=error.status)
        self._path = path
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        state["refusal"] = self._error.refusal  # `Observed` counts it
        request_id = state.get("request_id")
        payload = error_payload(self._path, self._error, request_id, scope["headers"])
        answer = json_response(payload, self._error.status, self._error.headers)
        await answer(scope, receive, send)


def route_path(scope: MutableMapping[str, Any]) -> str:
    """The path as routes see it: without the prefix of a proxy."""
    path, prefix = str(scope["path"]), str(scope.get("root_path", "")).rstrip("/")
    if prefix and (path == prefix or path.startswith(f"{prefix}/")):
        return path[len(prefix) :]
    return path


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A JSON response, encoded faster than by the framework."""
    return Response(
        msgspec.json.encode(content), status, headers=headers, media_type="application/json"
    )


def as_http_error(error: Exception) -> HTTPError:
    """The HTTP error for any exception of a request. Errors of the client are `HTTPError` by now
    (`input_phase.py`); everything else is a 500."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, EngineDeadError):
        return internal(str(error))
    logger.error("a request failed", exc_info=error)
    return internal(f"{type(error).__name__}: the server failed; see its log for details.")


def install_error_handlers(app: FastAPI) -> None:
    """Answer every way in which a request can fail in the same form."""

    async def on_error(request: Request, error: Exception) -> Response:
        return error_response(route_path(request.scope), as_http_error(error))

    async def on_framework(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kinds = {404: "NotFoundError", 405: "MethodNotAllowedError"}
        message = f"{error.detail}: {request.method} {request.scope['path']}"
        why, headers = None, dict(error.headers or {})
        if error.status_code == 404:
            why = why_unknown(request.scope)
        if error.status_code == 405:
            why = why_not_with_method(request.scope)
            headers["Allow"] = ", ".join(_methods(request.scope))
        known = HTTPError(
            error.status_code,
            message if why is None else f"{message}: {why}.",
            kinds.get(error.status_code, "BadRequestError"),
            headers=headers,
            tells_paths=True,
        )
        return error_response(route_path(request.scope), known)

    app.add_exception_handler(HTTPException, on_framework)
    for kind in (HTTPError, EngineDeadError):  # the guard handles all others
        app.add_exception_handler(kind, on_error)


def _methods(scope: Scope) -> list[str]:
    """The methods that the path of a request has; the framework tells those of one route only."""
    routes = scope["router"].routes
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
        if any(one.matches({**scope, "method": method})[0] is Match.FULL for one in routes)
    ]


def invalid_body(error: ValidationError) -> HTTPError:
    """400 with the first few errors of a body, each with its field, what is wrong, and the value
    that was sent."""
    errors = error.errors()
    lines = [_fault(one) for one in errors[:_MAX_VALIDATION_ERRORS]]
    more = len(errors) - len(lines)
    if more > 0:
        lines.append(f"and {more} more")
    place = _place(errors[0]["loc"])
    return HTTPError(400, "; ".join(lines), param=place, tells_paths=True)


def _fault(error: Any) -> str:
    message = str(error["msg"]).removeprefix("Value error, ")
    place = _place(error["loc"])
    if error["type"] in ("missing", "value_error") or place is None:
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, got {shown(error.get('input'), _MAX_INPUT_CHARS)}"


def _place(parts: Sequence[Any]) -> str | None:
    """``("messages", 0, "role")`` -> ``messages[0].role``, without pydantic's names of types."""
    text = ""
    for part in parts:
        if isinstance(part, int):
            text += f"[{part}]"
        elif str(part).replace("_", "").isalnum() and str(part)[:1].islower():
            text += f".{part}" if text else str(part)
    return text or None
