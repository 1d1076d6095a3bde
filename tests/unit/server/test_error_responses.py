"""Errors in the form that the client of a request expects."""

from __future__ import annotations

import httpx
import pytest

from quire.server.error_responses import error_payload
from quire.server.errors import HTTPError

MESSAGES = "/v1/messages"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *((status, "invalid_request_error") for status in (400, 405, 409, 411, 415, 431)),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        *((status, "timeout_error") for status in (408, 504)),
        (500, "api_error"),
        (501, "api_error"),
        (503, "overloaded_error"),
    ],
)
def test_anthropics_clients_are_told_whose_error_it_is(status: int, kind: str) -> None:
    payload = error_payload(MESSAGES, HTTPError(status, "why"), "an-id")
    error = {"type": kind, "message": "why"}
    assert payload == {"type": "error", "error": error, "request_id": "an-id"}


async def test_a_wrong_method_is_the_clients_error(client: httpx.AsyncClient) -> None:
    answer = await client.get(MESSAGES)
    assert answer.status_code == 405
    assert answer.json()["error"]["type"] == "invalid_request_error"
