"""Ids of requests: those that clients may give, and the prefixed ids in answers."""

from __future__ import annotations

import uuid

from starlette.requests import Request

from quire.server.error_responses import Headers, is_anthropic
from quire.server.errors import bad_request

HEADER = "x-request-id"
_ANTHROPIC_HEADER = "request-id"  # where Anthropic's clients look for it
_MAX_CHARS = 128
# What stands before a request's own id in its answer.
_PREFIXES = ("chatcmpl-", "cmpl-", "resp_", "msg_")


def from_header(given: bytes | None) -> str:
    """The client's id if it is valid as a header of the answer, else a new one."""
    text = (given or b"").decode("latin-1").strip()
    return text if _is_good(text) else uuid.uuid4().hex


def answer_headers(path: str, headers: Headers, request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers of an answer that carry the request id, for a request's path and headers."""
    names = (HEADER, _ANTHROPIC_HEADER) if is_anthropic(path, headers) else (HEADER,)
    return [(name.encode(), request_id.encode()) for name in names]


def request_id_of(request: Request, given: str | None) -> str:
    """The request's id: from its header, else from its body, else the one the guard has made. It
    is sent back in the header of the answer."""
    if given and HEADER not in request.headers:
        if not _is_good(given):
            raise bad_request(
                f"request_id must have at most {_MAX_CHARS} printable ASCII characters, got "
                f"{given[:40]!r}.",
                "request_id",
            )
        request.state.request_id = given
    return str(request.state.request_id)


def without_prefix(answer_id: str) -> str:
    """``chatcmpl-abc`` -> ``abc``."""
    for prefix in _PREFIXES:
        if answer_id.startswith(prefix):
            return answer_id.removeprefix(prefix)
    return answer_id


def _is_good(text: str) -> bool:
    return 0 < len(text) <= _MAX_CHARS and text.isascii() and text.isprintable()
