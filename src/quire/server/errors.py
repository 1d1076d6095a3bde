"""Errors of the HTTP API: a status, a type, a message, and the body they become.

The body is OpenAI's: ``{"error": {"message", "type", "param", "code"}}``. Messages reveal no path
of this machine: paths are cut in the messages of 5xx errors and of exceptions raised outside Quire.
All other messages hold only our own words and the client's.
"""

from __future__ import annotations

import contextlib
import re
import sys
import traceback
from collections.abc import Container, Iterator, Mapping
from typing import Any

from quire.shown import cut

BAD_REQUEST = "BadRequestError"
_PACKAGE = __name__.partition(".")[0]
# A wrong value that a message quotes may be as large as a body.
_MAX_MESSAGE, _MAX_PARAM = 4000, 200
_NAME = re.compile(r"(?<![\w.-])[a-z]+(_[a-z]+)+(?!\w)")  # a field's name, not a plain word
_FIRST_WORD = re.compile(r"\w+")
# A path in quotes may hold any character; paths below /v1/ are the API's, and stay.
_PATH = re.compile(
    r"""(?P<quote>['"])(?:file://)?/(?!v1/)(?:[^'"/\n]+/)+[^'"/\n]*/?(?P=quote)"""
    r"""|(?:file://|(?<![\w:/.#]))/(?!v1/)(?:[^\s'"/|<>,;()]+/)+[^\s'"/|<>,;()]*"""
)


class HTTPError(Exception):
    """Ends a request with this status and body."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: str = BAD_REQUEST,
        *,
        param: str | None = None,
        retry_after: int | None = None,  # seconds; for 429 and 503
        headers: dict[str, str] | None = None,
        details: dict[str, Any] | None = None,  # in Anthropic's form; its clients act on them
        tells_paths: bool = False,  # keep paths, which are the API's or the client's own
        refusal: str | None = None,  # why the server takes no more, for the metrics
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = cut(message, _MAX_MESSAGE)
        if not tells_paths and (status >= 500 or _is_of_others(sys.exc_info()[1])):
            self.message = without_paths(self.message)
        self.kind = kind
        self.param = None if param is None else cut(param, _MAX_PARAM)
        self.details = details
        self.refusal = refusal
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        return error_body(self.status, self.message, self.kind, self.param)


class PromptTooLong(HTTPError):
    """400 for a prompt that does not fit in the context. Clients search for the beginning of its
    message, or for "prompt is too long"."""

    def __init__(self, message: str, param: str, *, num_tokens: int, most_tokens: int) -> None:
        super().__init__(400, message, param=param)
        self.num_tokens = num_tokens  # at least
        self.most_tokens = most_tokens


def bad_request(message: str, param: str | None = None) -> HTTPError:
    """400 for an invalid request."""
    return HTTPError(400, message, param=param)


def no_schema(place: str) -> HTTPError:
    """400 for the type json_schema without a schema; ``place`` is where it must stand."""
    return bad_request(
        f"{place}: is missing; give the JSON schema of the answer, an object.", place
    )


def bad_value(error: Exception, fields: Container[str]) -> HTTPError:
    """400 with the error's message; its first word is the ``param`` if it is one of ``fields``."""
    message = str(error)
    named = _FIRST_WORD.match(message)
    name = named.group() if named is not None else ""
    return bad_request(message, name if name in fields else None)


@contextlib.contextmanager
def renamed(names: Mapping[str, str]) -> Iterator[None]:
    """Rename fields in errors raised inside: ``names`` maps our names to those that the client
    sent."""
    try:
        yield
    except HTTPError as error:
        name = error.param or ""
        if name in names:
            error.param = names[name]
            if error.message.startswith(name):
                error.message = names[name] + error.message.removeprefix(name)
        error.message = _NAME.sub(lambda one: names.get(one[0], one[0]), error.message)
        raise


def not_found(message: str, param: str | None = None, *, tells_paths: bool = False) -> HTTPError:
    """No such model, request or route: 404."""
    return HTTPError(404, message, "NotFoundError", param=param, tells_paths=tells_paths)


def conflict(message: str) -> HTTPError:
    """Not possible in the current state: 409."""
    return HTTPError(409, message, "ConflictError")


def too_many(message: str, refusal: str) -> HTTPError:
    """More than the server takes at once, of what ``refusal`` names: 429."""
    return HTTPError(429, message, "RateLimitError", retry_after=1, refusal=refusal)


def timed_out(name: str, seconds: float) -> HTTPError:
    """A time limit has passed before there was any output: 408."""
    return HTTPError(
        408,
        f"The request had no output within its time limit, {name}={seconds:g} seconds; allow more, "
        "or try again later.",
        "RequestTimeoutError",
    )


def unavailable(message: str) -> HTTPError:
    """Loading, draining or dead: 503."""
    return HTTPError(503, message, "ServiceUnavailableError", retry_after=5)


def broken_off() -> HTTPError:
    """The server shut down before the answer was complete: 503, so that clients retry."""
    return unavailable("The server shut down before the request had ended; send it again.")


def internal(message: str) -> HTTPError:
    """The request failed on our side: 500."""
    return HTTPError(500, message, "InternalServerError")


def error_body(status: int, message: str, kind: str, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def _is_of_others(error: BaseException | None) -> bool:
    """Whether an exception was raised outside Quire, or while another one was being handled, which
    its message may quote."""
    if error is None:
        return False
    if isinstance(error, (OSError, ImportError)):  # raised in our frames, but by Python
        return True
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    is_ours = str(frame.f_globals.get("__name__")).partition(".")[0] == _PACKAGE
    return not is_ours or error.__context__ is not None


def without_paths(message: str) -> str:
    """The message with absolute paths cut to their last name."""
    return _PATH.sub(_last_name, message)


def _last_name(found: re.Match[str]) -> str:
    quote = found["quote"] or ""
    return quote + found.group().strip("'\"/").rsplit("/", 1)[-1] + quote
