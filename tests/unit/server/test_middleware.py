"""Middleware of the user's: what can be some, and what is refused at the start."""

from __future__ import annotations

import asyncio
import json

import pytest
from fastapi import Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.server.app import build_app, make_layers
from quire.server.args import ServerArgs
from quire.server.serve import check
from quire.server.state import ServerState
from tests.fakes.server import in_process_client


async def test_middleware_by_its_import_path(state: ServerState) -> None:
    state.args.middleware = [f"{__name__}.Teapot"]
    async with in_process_client(state) as client:
        assert (await client.get("/health")).status_code == 418


async def test_a_function_is_middleware_too(state: ServerState) -> None:
    state.args.middleware = [f"{__name__}.mark", f"{__name__}.around"]
    async with in_process_client(state) as client:
        answer = await client.get("/health")
    assert answer.status_code == 200
    assert (answer.headers["x-path"], answer.headers["x-around"]) == ("/health", "yes")


@pytest.mark.parametrize("sent", ["/health", "/a%20b/health"])  # a proxy takes it off, or not
async def test_middleware_sees_the_path_before_the_proxy(state: ServerState, sent: str) -> None:
    state.args.middleware = [f"{__name__}.mark"]
    state.args.root_path = "/a b"
    async with in_process_client(state) as client:
        answer = await client.get(sent)
    assert answer.status_code == 200
    assert answer.headers["x-path"] == "/a b/health"
    assert answer.headers["x-raw-path"] == "/a%20b/health"


async def mark(request: Request, call_next: RequestResponseEndpoint) -> Response:
    answer = await call_next(request)
    answer.headers["x-path"] = request.url.path
    answer.headers["x-raw-path"] = request.scope.get("raw_path", b"").decode()
    return answer


def around(app: ASGIApp) -> ASGIApp:
    async def with_header(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"x-around", b"yes")]
            await send(message)

        await app(scope, receive, send_on)

    return with_header


async def test_a_stream_passes_a_function_and_ends_with_its_client(state: ServerState) -> None:
    state.args.middleware = [f"{__name__}.mark"]
    app, sent = build_app(state), list[Message]()
    body = {"prompt": "Once", "max_tokens": 1500, "ignore_eos": True, "stream": True}
    requests: list[Message] = [{"type": "http.request", "body": json.dumps(body).encode()}]

    async def receive() -> Message:
        if not requests:  # the client leaves with the first event
            while not any(message.get("body") for message in sent):
                await asyncio.sleep(0.001)
            return {"type": "http.disconnect"}
        return requests.pop()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "query_string": b""}
    await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)
    assert (b"x-path", b"/v1/completions") in sent[0]["headers"]
    *_, last, _, _ = (message.get("body", b"") for message in sent)
    assert b'"finish_reason":"abort"' in last


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("no_such", "has no attribute 'no_such'"),
        ("__name__", r"it cannot be called with \(app\): .* is not a callable object"),
        ("Mute", r"it cannot be called with \(app\): missing .* 'words'"),
        ("request_of", r"it cannot be called with \(app\): missing .* 'call_next'"),
        ("whole_app", r"it cannot be called with \(request, call_next\): missing .*'send'"),
    ],
)
def test_what_cannot_be_middleware_is_refused_at_the_start(name: str, why: str) -> None:
    words = f"--middleware {__name__}.{name}: .*{why}; give the import path of an ASGI"
    with pytest.raises(ValueError, match=words):
        check(ServerArgs(middleware=[f"{__name__}.{name}"]))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Broken", "creating it failed: RuntimeError: no licence$"),
        ("nothing", "it returned a NoneType, which is not callable; give the"),
    ],
)
def test_middleware_that_cannot_be_made_is_refused_before_it_serves(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=f"--middleware {__name__}.{name}: {why}"):
        make_layers(build_app(ServerState(args=ServerArgs(middleware=[f"{__name__}.{name}"]))))


class Mute:
    def __init__(self, app: ASGIApp, words: str) -> None:
        pass


class Broken:
    def __init__(self, app: ASGIApp) -> None:
        raise RuntimeError("no licence")


def request_of(request: Request, call_next: RequestResponseEndpoint) -> None:
    pass


def nothing(app: ASGIApp) -> None:
    pass


async def whole_app(scope: Scope, receive: Receive, send: Send) -> None:
    pass


class Teapot:
    """Answers everything."""

    def __init__(self, app: object) -> None:
        pass

    async def __call__(self, scope: object, receive: object, send: object) -> None:
        assert callable(send)
        await send({"type": "http.response.start", "status": 418, "headers": []})
        await send({"type": "http.response.body", "body": b""})
