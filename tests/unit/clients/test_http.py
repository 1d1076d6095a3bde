from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from quire.clients.address import Address, CertificateError, ServerError
from quire.clients.http import HTTPClient, tell_of_proxy
from tests.fakes.certificates import certificate_files
from tests.fakes.sse_server import Answer, FakeServer, Script, Seen, fake_server, json_script


@asynccontextmanager
async def client_of(answer: Answer) -> AsyncIterator[tuple[HTTPClient, FakeServer]]:
    with fake_server(answer) as server:
        client = HTTPClient(Address.parse(server.url), {"Authorization": "Bearer k"})
        try:
            yield client, server
        finally:
            await client.close()


async def test_a_connection_is_used_again() -> None:
    async with client_of(lambda seen: json_script({"path": seen.path})) as (client, server):
        replies = [await client.post("/v1/a", b'{"n": 1}'), await client.get("/v1/b")]
    assert [reply.body for reply in replies] == [b'{"path": "/v1/a"}', b'{"path": "/v1/b"}']
    assert [seen.connection for seen in server.seen] == [0, 0]
    first = server.seen[0]
    assert (first.method, first.body) == ("POST", {"n": 1})
    assert first.headers["authorization"] == "Bearer k"
    assert first.headers["content-type"] == "application/json"


async def test_requests_at_once_have_connections_of_their_own() -> None:
    async with client_of(lambda seen: json_script(seen.body)) as (client, server):
        bodies = [b'{"n": %d}' % n for n in range(20)]
        replies = await asyncio.gather(*(client.post("/v1/x", body) for body in bodies))
    assert [reply.body for reply in replies] == bodies
    assert len({seen.connection for seen in server.seen}) > 1


async def test_a_stream_is_handed_over_piece_by_piece() -> None:
    pieces = [b"one", b"two", b"three"]
    async with client_of(lambda seen: Script(pieces=pieces)) as (client, _):
        got: list[bytes] = []
        reply = await client.post("/v1/x", b"{}", on_body=got.append)
    assert b"".join(got) == b"onetwothree"
    assert (reply.status, reply.body) == (200, b"")


async def test_a_refusal_of_a_stream_is_a_body() -> None:
    script = json_script({"error": "full"}, status=429, **{"Retry-After": "3"})
    async with client_of(lambda seen: script) as (client, _):
        got: list[bytes] = []
        reply = await client.post("/v1/x", b"{}", on_body=got.append)
    assert (reply.status, reply.body, got) == (429, b'{"error": "full"}', [])
    assert reply.headers["retry-after"] == "3"


async def test_a_kept_connection_that_the_server_has_closed_is_replaced() -> None:
    def answer(seen: Seen) -> Script:
        if seen.connection == 0 and seen.path == "/v1/second":  # read, and closed without a word
            raise ConnectionResetError
        return json_script({"path": seen.path})

    async with client_of(answer) as (client, server):
        await client.get("/v1/first")
        reply = await client.get("/v1/second")
    assert reply.body == b'{"path": "/v1/second"}'
    assert [seen.connection for seen in server.seen] == [0, 0, 1]


async def test_connection_close_is_honoured() -> None:
    script = Script(pieces=[b"x"], keeps_alive=False)
    async with client_of(lambda seen: script) as (client, server):
        assert [(await client.get("/v1/x")).body for _ in range(2)] == [b"x", b"x"]
    assert [seen.connection for seen in server.seen] == [0, 1]


async def test_a_body_may_end_with_the_connection() -> None:
    script = Script(pieces=[b"to ", b"the end"], has_no_length=True)
    async with client_of(lambda seen: script) as (client, _):
        assert (await client.get("/v1/x")).body == b"to the end"


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    async with client_of(lambda seen: Script(pieces=[b"half"], then_close=True)) as (client, _):
        with pytest.raises(ServerError, match="in the middle of its answer"):
            await client.get("/v1/x")


async def test_a_server_that_is_not_there() -> None:
    with fake_server(lambda seen: Script()) as server:
        address = Address.parse(server.url)
    with pytest.raises(ServerError, match="cannot be reached") as caught:
        await HTTPClient(address).get("/v1/x")
    assert caught.value.status is None


async def test_a_get_is_given_up_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.clients.http.GET_TIMEOUT_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = Address.parse(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ServerError, match=r"has not answered GET /v1/x within 0\.05 s"):
            await HTTPClient(address).get("/v1/x")


async def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate_files(tmp_path))
    async with await asyncio.start_server(lambda *streams: None, "127.0.0.1", 0, ssl=context) as it:
        address = Address.parse(f"https://127.0.0.1:{it.sockets[0].getsockname()[1]}")
        with pytest.raises(CertificateError, match="that is not trusted: self"):
            await HTTPClient(address).get("/v1/x")


@pytest.mark.parametrize(
    ("environment", "tells"),
    [
        ({"http_proxy": "http://user:secret@p:1"}, True),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost,host"}, False),
        ({"https_proxy": "http://p:1"}, False),
        ({}, False),
    ],
)
def test_a_proxy_that_is_not_used_is_told(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    environment: dict[str, str],
    tells: bool,
) -> None:
    monkeypatch.setattr("quire.log.setup", lambda: None)  # its handler would hide the records
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tell_of_proxy(Address.parse("http://host:80"))
    assert ("http_proxy is not used: requests go to http://host directly" in caplog.text) == tells
    assert "secret" not in caplog.text


async def test_what_a_consumer_raises_ends_its_request() -> None:
    def consume(data: bytes) -> None:
        raise KeyError("mine")

    async with client_of(lambda seen: Script(pieces=[b"x"])) as (client, _):
        with pytest.raises(KeyError, match="mine"):
            await client.post("/v1/x", b"{}", on_body=consume)
        assert (await client.get("/v1/x")).body == b"x"


async def test_a_request_that_is_given_up_closes_its_connection() -> None:
    async with client_of(lambda seen: Script(pieces=[b"x"])) as (client, server):
        request = asyncio.create_task(client.get("/v1/x"))
        while not server.seen and not request.done():
            await asyncio.sleep(0)
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        assert (await client.get("/v1/y")).body == b"x"


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
LATE = b"HTTP/1.1 408 Late\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize(("before", "behind"), [(EARLY, b""), (b"", LATE), (b"", b"nonsense")])
async def test_only_an_answer_to_what_was_asked_counts(before: bytes, behind: bytes) -> None:
    def answer(seen: Seen) -> Script:
        return Script(pieces=[seen.path.encode()], before=before, behind=behind)

    async with client_of(answer) as (client, _):
        reply = await client.get("/first")
        assert (reply.status, reply.body) == (200, b"/first")
        assert "link" not in reply.headers
        paths = [f"/{i}" for i in range(4)]
        replies = await asyncio.wait_for(asyncio.gather(*map(client.get, paths)), 20)
        assert [reply.body.decode() for reply in replies] == paths
        assert len(set(client._idle)) == len(client._idle)
