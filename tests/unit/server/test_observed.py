"""The labels of HTTP responses in the metrics, whoever has answered."""

from __future__ import annotations

from typing import Any

import pytest

from quire.server.args import ServerArgs
from quire.server.state import ServerState
from tests.fakes.server import KEY, in_process_client

AUTH = {"Authorization": f"Bearer {KEY}"}
AS_TEXT = {**AUTH, "Content-Type": "text/plain"}


@pytest.mark.parametrize(
    ("method", "path", "sent", "handler", "status"),
    [
        ("POST", "/v1/completions", {"json": {}}, "/v1/completions", 401),
        ("POST", "/llm/v1/completions", {"json": {}}, "/v1/completions", 401),
        ("GET", "/v1/models/a/b", {}, "/v1/models/{name:path}", 401),
        ("POST", "/v1/responses/input_tokens", {"json": {}}, "/v1/responses/input_tokens", 401),
        ("POST", "/v1/messages", {"content": b"x" * 2000, "headers": AUTH}, "/v1/messages", 413),
        ("POST", "/tokenize", {"content": b"{}", "headers": AS_TEXT}, "/tokenize", 415),
        ("GET", "/nothing", {}, "none", 401),
        ("GET", "/nothing", {"headers": AUTH}, "none", 404),
        ("DELETE", "/v1/completions", {}, "none", 401),  # clients cannot create series
    ],
)
async def test_a_refusal_has_the_path_that_was_asked(
    method: str, path: str, sent: dict[str, Any], handler: str, status: int
) -> None:
    args = ServerArgs(api_key=(KEY,), max_request_body_size="1000", root_path="/llm")
    async with in_process_client(ServerState(args=args)) as client:
        answer = await client.request(method, path, **sent)
        text = (await client.get("/metrics", headers=AUTH)).text
    assert answer.status_code == status
    labels = f'handler="{handler}",method="{method}",status="{status}"'
    assert f"quire:http_responses_total{{{labels}}} 1.0" in text
