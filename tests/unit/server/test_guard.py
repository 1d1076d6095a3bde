"""What requests pass before a route sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.middleware import Middleware
from starlette.responses import Response, StreamingResponse

from quire.server.app import build_app
from quire.server.args import ServerArgs
from quire.server.bodies import BodyRoute
from quire.server.error_responses import install_error_handlers, json_response
from quire.server.guard import Guard, allowed_hosts
from quire.server.keys import all_keys
from quire.server.state import ServerState

LIMIT = 100


class Body(BaseModel):
    text: str


def app_with(*keys: str, hosts: frozenset[str] | None = None) -> FastAPI:
    guard = Middleware(Guard, keys=keys, max_body_bytes=LIMIT, hosts=hosts)
    app = FastAPI(middleware=[guard])
    install_error_handlers(app)
    app.router.route_class = BodyRoute
    app.state.quire = ServerState(args=ServerArgs())

    @app.get("/health")
    @app.get("/v1/models")
    async def get(request: Request) -> str:
        return str(request.state.request_id)

    @app.post("/v1/echo")
    @app.post("/v1/messages")
    async def echo(body: Body, request: Request) -> Response:
        return json_response(body.text)

    @app.post("/v1/empty")
    async def empty() -> None:
        pass

    @app.post("/bug")
    async def bug() -> None:
        raise ValueError("a bug")

    @app.post("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[str]:
            yield "one"
            raise KeyError("too late for an answer")

        return StreamingResponse(pieces())

    return app


async def ask(
    app: FastAPI, method: str, path: str, *, root_path: str = "", **more: Any
) -> httpx.Response:
    transport = httpx.ASGITransport(app, root_path=root_path)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, path, **more)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer one"}, 200),
        ({"Authorization": "bearer  two"}, 200),
        ({"Authorization": "Basic one"}, 401),
        ({"Authorization": "one"}, 401),
        ({"Authorization": b"Bearer \xff"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"x-api-key": "two"}, 200),
        ({"x-api-key": "three"}, 401),
        ({"x-api-key": "one", "Authorization": "Bearer of bad news"}, 200),
    ],
)
async def test_keys(headers: Any, status: int) -> None:
    answer = await ask(app_with("one", "two"), "GET", "/v1/models", headers=headers)
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["error"]["type"] == "AuthenticationError"
        assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "POST", "DELETE"])
async def test_no_method_gets_around_the_key(method: str) -> None:
    assert (await ask(app_with("one"), method, "/v1/models")).status_code == 401


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/metrics", "/nothing", "/healthz"])
async def test_every_path_but_the_open_ones_asks_for_the_key(path: str) -> None:
    assert (await ask(app_with("one"), "GET", path)).status_code == 401
    assert (await ask(app_with("one"), "GET", "/health")).status_code == 200


@pytest.mark.parametrize("root_path", ["/api", "/api/"])
async def test_a_proxy_may_leave_its_prefix_or_take_it_off(root_path: str) -> None:
    app = build_app(ServerState(args=ServerArgs(root_path=root_path, api_key=("one",))))
    for path, status in [
        ("/livez", 200),
        ("/api/livez", 200),
        ("/api/v1/requests", 401),
        ("/v1/requests", 401),
        ("/apiv1/requests", 401),
        ("/api/api/livez", 401),
    ]:
        assert (await ask(app, "GET", path)).status_code == status, path
    keyed = {"Authorization": "Bearer one"}
    for path in ("/v1/requests", "/api/v1/requests"):
        assert (await ask(app, "GET", path, headers=keyed)).status_code == 200
    described = (await ask(app, "GET", "/api/openapi.json", headers=keyed)).json()
    assert described["servers"] == [{"url": "/api"}]


async def test_a_prefix_that_looks_open_opens_nothing() -> None:
    async def status(path: str, **headers: str) -> int:
        answer = await ask(app_with("one"), "GET", path, root_path="/page", headers=headers)
        return answer.status_code

    assert await status("/page/v1/models") == 401
    assert await status("/page/v1/models", Authorization="Bearer one") == 200
    assert await status("/page/health") == 200


@pytest.mark.parametrize("name", ["Authorization", "Content-Type", "x-api-key"])
async def test_headers_that_matter_come_once(name: str) -> None:
    headers = [(name, "Bearer one"), (name, "Bearer two")]
    answer = await ask(app_with("one"), "GET", "/v1/models", headers=headers)
    assert answer.status_code == 400 and "more than once" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [("abc-1", True), ("two words", True), ("x" * 129, False), ("", False), (b"\xe4", False)],
)
async def test_request_ids(given: Any, is_kept: bool) -> None:
    answer = await ask(app_with(), "GET", "/health", headers={"X-Request-Id": given})
    own_id = answer.headers["x-request-id"]
    assert answer.json() == own_id
    assert (own_id == given) == is_kept and len(own_id) >= 5


async def test_refusals_have_a_request_id_too() -> None:
    answer = await ask(app_with("one"), "GET", "/v1/models", headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (401, "mine")


@pytest.mark.parametrize(
    ("path", "headers", "is_told"),
    [
        ("/v1/messages", {}, True),
        ("/v1/messages/count_tokens", {}, True),
        ("/v1/models", {"anthropic-version": "2023-06-01"}, True),
        ("/v1/models", {}, False),
        ("/v1/responses/one", {"anthropic-version": "2023-06-01"}, False),  # as gateways add it
    ],
)
async def test_anthropics_clients_have_errors_and_the_request_id_where_they_look(
    path: str, headers: dict[str, str], is_told: bool
) -> None:
    own = {"X-Request-Id": "mine", **headers}
    answer = await ask(app_with("one"), "GET", path, headers=own)
    assert answer.status_code == 401
    assert answer.headers.get("request-id") == ("mine" if is_told else None)
    error = answer.json()
    assert error["error"]["type"] == ("authentication_error" if is_told else "AuthenticationError")
    assert error.get("request_id") == ("mine" if is_told else None)


AS_JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"Content-Type": "application/json"}, b'{"text": "a"}', 200),
        ({"Content-Type": "application/json; charset=utf-8"}, b'{"text": "a"}', 200),
        ({"Content-Type": "Application/JSON"}, b'{"text": "a"}', 200),
        ({"Content-Type": "text/plain"}, b'{"text": "a"}', 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, b'{"text": "a"}', 415),
        ({}, b'{"text": "a"}', 415),
        ({"Content-Type": "application/json"}, b'{"text": ', 400),
        ({"Content-Type": "application/json"}, b"\xff\xfe", 400),
        ({"Content-Type": "application/json"}, b"", 400),
        ({"Content-Type": "application/json", "Content-Length": "x"}, b"", 400),
        ({**AS_JSON, "Content-Encoding": "Identity"}, b'{"text": "a"}', 200),
        ({**AS_JSON, "Content-Encoding": "gzip"}, b"\x1f\x8b", 415),
    ],
)
async def test_bodies_are_json(headers: Any, content: bytes, status: int) -> None:
    answer = await ask(app_with(), "POST", "/v1/echo", headers=headers, content=content)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["code"] == status


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/v1/nothing", 404), ("POST", "/health", 405)]
)
@pytest.mark.parametrize("root_path", ["", "/prefix"])
async def test_a_path_that_takes_no_body_says_so_whatever_the_body_is(
    method: str, path: str, status: int, root_path: str
) -> None:
    sent: Any = {"headers": {"Content-Type": "multipart/form-data; boundary=x"}, "content": b"--x"}
    for one, asked, expected in ((method, path, status), ("POST", "/v1/echo", 415)):
        answer = await ask(app_with(), one, root_path + asked, root_path=root_path, **sent)
        assert answer.status_code == expected


async def test_a_compressed_body_is_told_what_to_do() -> None:
    headers = {**AS_JSON, "Content-Encoding": "gzip"}
    answer = await ask(app_with(), "POST", "/v1/echo", headers=headers, content=b"\x1f\x8b")
    assert answer.headers["accept-encoding"] == "identity"
    message = answer.json()["error"]["message"]
    assert "Content-Encoding 'gzip' is not" in message and "without compression" in message


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://behind.a.proxy"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://test"}, 200),
        ({"Origin": "http://elsewhere"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://elsewhere", "Content-Type": "application/json"}, 200),
    ],
)
async def test_a_form_of_another_site_does_nothing(headers: dict[str, str], status: int) -> None:
    answer = await ask(app_with(), "POST", "/v1/empty", headers=headers)
    assert answer.status_code == status
    assert (await ask(app_with(), "GET", "/health", headers=headers)).status_code == 200


JSON = {"Content-Type": "application/json"}


async def test_a_large_body_is_refused_before_it_is_read() -> None:
    content = b'{"text": "%s"}' % (b"a" * LIMIT)
    answer = await ask(app_with(), "POST", "/v1/echo", headers=JSON, content=content)
    assert answer.status_code == 413
    assert f"larger than {LIMIT} bytes" in answer.json()["error"]["message"]


async def test_a_body_that_grows_is_refused_when_it_is_too_large() -> None:
    num_read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal num_read
        for _ in range(1000):
            num_read += 1
            yield b'"' + b"a" * 20

    answer = await ask(app_with(), "POST", "/v1/echo", headers=JSON, content=pieces())
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "RequestTooLargeError"
    assert answer.headers["x-request-id"]


async def test_bodies_that_are_read_at_once_are_limited_in_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quire.server.guard._SMALL_BODY", LIMIT // 2)
    app = app_with()
    ends = asyncio.Event()

    async def slow(sent: list[Any]) -> None:
        is_first = True

        async def receive() -> Any:
            nonlocal is_first
            if is_first:
                is_first = False
                return {"type": "http.request", "body": b" " * LIMIT, "more_body": True}
            await ends.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-type", b"application/json"), (b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "POST", "path": "/v1/echo", "query_string": b""}
        await app(cast(Any, {**scope, "headers": headers}), receive, send)

    answers: list[list[Any]] = [[] for _ in range(17)]
    readers = [asyncio.create_task(slow(sent)) for sent in answers]
    await readers[-1]  # there was room for the others
    assert answers[-1][0]["status"] == 429
    assert (b"retry-after", b"1") in [(k.lower(), v) for k, v in answers[-1][0]["headers"]]
    assert not any(reader.done() for reader in readers[:-1])
    small = await ask(app, "POST", "/v1/echo", json={"text": "a"})
    assert small.status_code == 200  # nobody keeps it out
    ends.set()
    await asyncio.gather(*readers)
    answer = await ask(app, "POST", "/v1/echo", json={"text": "a" * (LIMIT // 2)})
    assert answer.status_code == 200  # the room of those that left is free again


async def test_a_body_that_was_read_holds_no_room() -> None:
    app = app_with()
    for _ in range(100):
        assert (await ask(app, "POST", "/v1/echo", json={"text": "a" * 80})).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(("localhost", 200), ("localhost:8000", 200), ("LOCALHOST:1", 200), ("127.0.0.1:8", 200)),
        *(("[::1]:8000", 200), ("[::1]", 200), ("proxy.name", 200)),
        *(("evil.name", 403), ("localhost.evil.name:80", 403), ("evil.name:localhost", 403)),
        *(("", 403), ("[::2]:80", 403), (b"\xff", 403)),
    ],
)
async def test_the_server_answers_to_its_own_names_only(host: Any, status: int) -> None:
    app = app_with(hosts=allowed_hosts("127.0.0.1", ["Proxy.name"], False))
    answer = await ask(app, "GET", "/v1/models", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert "--allowed-hosts" in answer.json()["error"]["message"]
    assert (await ask(app_with(), "GET", "/v1/models", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("address", "names", "has_keys", "is_checked"),
    [
        ("127.0.0.1", (), False, True),
        ("127.0.0.2", (), False, True),
        ("::1", (), False, True),
        ("localhost", (), False, True),
        ("127.0.0.1", (), True, False),
        ("127.0.0.1", ("*",), False, False),
        ("0.0.0.0", (), False, False),
        ("some.name", (), False, False),
        ("0.0.0.0", ("a",), True, True),
    ],
)
def test_when_hosts_are_checked(
    address: str, names: tuple[str, ...], has_keys: bool, is_checked: bool
) -> None:
    hosts = allowed_hosts(address, names, has_keys)
    assert (hosts is not None) == is_checked
    if hosts is not None:
        assert {"localhost", "127.0.0.1", "[::1]", *names} <= hosts
        assert (f"[{address}]" if ":" in address else address) in hosts


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ({}, 403),
        ({"uds": "/some/socket"}, 200),
        ({"host": "0.0.0.0"}, 200),
        ({"allowed_hosts": ["evil.name"]}, 200),
    ],
)
async def test_the_flags_say_which_hosts_are_allowed(args: Any, status: int) -> None:
    app = build_app(ServerState(args=ServerArgs(**args)))
    answer = await ask(app, "GET", "/version", headers={"Host": "evil.name"})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *(("/livez", 200), ("/startupz", 503), ("/health", 503), ("/readyz", 503), ("/ping", 503)),
        *(("/", 403), ("/page/chat.js", 403), ("/metrics", 403), ("/livez/x", 403)),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_a_probe_may_call_the_server_by_its_address(
    path: str, status: int, prefix: str
) -> None:
    app = build_app(ServerState(args=ServerArgs(allowed_hosts=["my.name"], root_path=prefix)))
    host = {"Host": "10.1.2.3:8000"}  # as a kubelet sends it
    answer = await ask(app, "GET", prefix + path, headers=host)  # the server is still loading
    assert answer.status_code == status


async def test_a_body_in_pieces_within_the_limit_is_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"text":'
        yield b' "a"}'

    answer = await ask(app_with(), "POST", "/v1/echo", headers=JSON, content=pieces())
    assert (answer.status_code, answer.json()) == (200, "a")


async def test_a_bug_is_an_answer_and_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    answer = await ask(app_with(), "POST", "/bug")
    assert answer.status_code == 500
    message = answer.json()["error"]["message"]
    assert message == "ValueError: the server failed; see its log for details."
    assert answer.headers["x-request-id"]
    assert "a bug" in caplog.text


async def test_a_stream_that_fails_is_cut_off() -> None:
    with pytest.raises(KeyError):
        await ask(app_with(), "POST", "/stream")


async def test_unknown_routes_and_wrong_methods_have_our_body() -> None:
    missing = await ask(app_with(), "GET", "/v1/nothing")
    assert missing.json()["error"]["type"] == "NotFoundError"
    assert "GET /v1/nothing" in missing.json()["error"]["message"]
    wrong = await ask(app_with(), "GET", "/v1/echo")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["type"] == "MethodNotAllowedError"


async def test_anthropic_routes_have_anthropics_errors() -> None:
    answer = await ask(app_with("one"), "POST", "/v1/messages")
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "authentication_error"


async def test_wrong_fields_are_named_without_the_frameworks_words() -> None:
    answer = await ask(app_with(), "POST", "/v1/echo", json={"text": 3})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "text")
    assert error["message"].startswith("text: ") and "got 3" in error["message"]


async def test_websockets_are_refused() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await app_with()({"type": "websocket", "path": "/health", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_keys_come_from_flags_then_the_environment_and_from_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("# team a\nthree\n\n  four  \none\n")
    assert all_keys(ServerArgs()) == []
    assert all_keys(ServerArgs(api_key=["one", "two"], api_key_file=str(file))) == [
        *("one", "two", "three", "four"),
    ]
    monkeypatch.setenv("VLLM_API_KEY", "theirs")
    assert all_keys(ServerArgs()) == ["theirs"]
    monkeypatch.setenv("QUIRE_API_KEY", "ours")
    assert all_keys(ServerArgs(api_key_file=str(file))) == ["ours", "three", "four", "one"]
    assert all_keys(ServerArgs(api_key=["one"])) == ["one"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"# nothing\n", "holds no key"),
        (b"\xff\xfe", "is not text"),
        (b"two words\n", "number 1 has characters"),
    ],
)
def test_a_key_file_that_would_leave_the_server_open_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        all_keys(ServerArgs(api_key_file=str(file)))
