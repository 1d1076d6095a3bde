"""The access log: one line for each request, however it ends."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server.app import build_app
from quire.server.args import ServerArgs, parse_paths
from quire.server.guard import Message, Scope
from quire.server.state import ServerState
from tests.fakes.server import in_process_client, ready_state

LOGGED = {"enable_access_log": True}


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="quire.access")
    return caplog


def shown(lines: pytest.LogCaptureFixture) -> list[str]:
    """The messages of the access log without their clients and seconds."""
    records = [one for one in lines.records if one.name == "quire.access"]
    return [one.getMessage().partition(" - ")[2].rsplit(" ", 2)[0] for one in records]


async def test_every_request_has_one_line(lines: pytest.LogCaptureFixture) -> None:
    state = ServerState(args=ServerArgs(**LOGGED))
    async with in_process_client(state) as client:
        await client.get("/livez?a=b%20c")
        await client.get("/nothing é")
        await client.post("/v1/completions", content=b"", headers={"Content-Length": "x"})
    assert shown(lines) == [
        '"GET /livez?a=b%20c HTTP/1.1" 200',
        '"GET /nothing%20%C3%A9 HTTP/1.1" 404',
        '"POST /v1/completions HTTP/1.1" 400',
    ]
    fields = vars(lines.records[0])["fields"]
    assert (fields["method"], fields["path"], fields["status"]) == ("GET", "/livez?a=b%20c", 200)
    assert fields["client"] == "127.0.0.1:123" and fields["seconds"] >= 0


async def test_it_is_off_unless_asked_for(lines: pytest.LogCaptureFixture) -> None:
    async with in_process_client(ServerState(args=ServerArgs())) as client:
        await client.get("/livez")
    assert shown(lines) == []


async def test_paths_can_be_left_out(lines: pytest.LogCaptureFixture) -> None:
    quiet = parse_paths("/livez, /metrics,")
    args = ServerArgs(**LOGGED, disable_access_log_for_endpoints=quiet, root_path="/api")
    async with in_process_client(ServerState(args=args)) as client:
        for path in ("/livez?x=1", "/api/livez", "/metrics", "/livez/x", "/health"):
            await client.get(path)
    assert shown(lines) == [
        '"GET /api/livez/x HTTP/1.1" 404',
        '"GET /api/health HTTP/1.1" 503',
    ]


@pytest.mark.parametrize("given", ["/health,/metrics", '["/health", "/metrics"]'])
def test_paths_may_be_text_or_a_json_list(given: str) -> None:
    args = ServerArgs(disable_access_log_for_endpoints=given)
    assert args.disable_access_log_for_endpoints == ["/health", "/metrics"]


def test_a_path_needs_its_slash() -> None:
    with pytest.raises(ValueError, match="'health' is no path; begin it with a slash: /health"):
        parse_paths("/metrics,health")


async def test_a_client_that_leaves_before_the_answer_is_logged(
    engine: AsyncLLM, lines: pytest.LogCaptureFixture
) -> None:
    body = b'{"prompt": "Hello", "max_tokens": 200, "ignore_eos": true}'
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "query_string": b"key=\xff",
        "http_version": "1.1",
        "client": None,
        "headers": [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ],
    }
    messages: list[Message] = [
        {"type": "http.request", "body": body, "more_body": False},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else await asyncio.Event().wait()

    async def send(message: Message) -> None:
        raise AssertionError(message)

    await build_app(ready_state(engine, **LOGGED))(scope, receive, send)
    assert shown(lines) == [r'"POST /v1/completions?key=\xff HTTP/1.1" 499']
