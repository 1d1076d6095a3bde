"""Connections of real sockets: clients that send nothing more, take nothing of their answers, send
requests ahead, offer other protocols, or speak an old one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest
import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl

from quire.engine.async_engine import AsyncLLM
from quire.server.app import build_app
from quire.server.http_parser import HttpProtocol
from quire.server.state import ServerState
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE
from tests.fakes.server import ready_state

MOST = 10**9
DEADLINE_S = 20
BODY = json.dumps({"prompt": [5], "max_tokens": MOST, "stream": True, "return_token_ids": True})


class Hasty(HttpProtocol):
    """Loses patience at once with who takes nothing."""

    write_timeout_s = 0.05


class Short(HttpProtocol):
    """Loses patience at once with who sends nothing."""

    read_timeout_s = 0.2


@pytest.fixture
def state() -> Iterator[ServerState]:
    config = fake_config(max_model_len=MOST + 10)
    engine = AsyncLLM(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    yield ready_state(engine)
    engine.shutdown()


@contextlib.asynccontextmanager
async def served(state: ServerState, protocol: type[HttpProtocol] = Hasty) -> AsyncIterator[int]:
    """The port of a server in this event loop."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # connections inherit it
        app = build_app(state)
        config = uvicorn.Config(app, http=protocol, lifespan="off", log_config=None, ws="none")
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        running = asyncio.create_task(server._serve([listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await running


async def connected(port: int) -> socket.socket:
    """A client that has asked for an endless stream, and has little room for it."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", port))
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    await loop.sock_sendall(client, f"{head}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode())
    return client


async def until_idle(state: ServerState) -> None:
    engine = state.require_engine()
    while len(state.running) or engine.get_num_unfinished_requests():
        await asyncio.sleep(0.001)  # the core's thread has work to do


async def test_a_client_that_stops_reading_is_cut_off(state: ServerState) -> None:
    async with served(state) as port:
        with contextlib.closing(await connected(port)) as client:
            loop = asyncio.get_running_loop()
            assert (await loop.sock_recv(client, 100)).startswith(b"HTTP/1.1 200")
            assert len(state.running) == 1
            await asyncio.wait_for(until_idle(state), DEADLINE_S)
            assert (await state.require_engine().stats()).num_running == 0
            with contextlib.suppress(ConnectionResetError):  # or the end of what was on its way
                while await loop.sock_recv(client, 1 << 20):
                    pass


HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
SHORT_BODY = json.dumps({"prompt": [5], "max_tokens": 1, "stop": None})
REQUEST = f"{HEAD}Content-Length: {len(SHORT_BODY)}\r\n\r\n{SHORT_BODY}"


H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
OFFERED = REQUEST.replace("\r\n", f"\r\n{H2C}", 1)


@pytest.mark.parametrize("sent", ["", "GET /hea", HEAD, REQUEST[:-1], HEAD + H2C, OFFERED[:-1]])
async def test_a_client_that_sends_no_more_is_cut_off(state: ServerState, sent: str) -> None:
    async with served(state, Short) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent.encode())
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
        writer.close()
        assert len(state.running) == 0


class Patient(Short):
    """Takes as long as a body needs."""

    min_body_bytes_s = 1


async def test_a_body_that_drips_is_cut_off(state: ServerState) -> None:
    body = SHORT_BODY + " " * 1000
    async with served(state, Short) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode())
        answer = asyncio.create_task(reader.read())
        for letter in body:  # each long before one may wait
            if answer.done():
                break
            writer.write(letter.encode())
            await asyncio.sleep(Short.read_timeout_s / 20)
        assert answer.done()
        with contextlib.suppress(ConnectionResetError):
            assert await answer == b""
        writer.close()
        assert len(state.running) == 0


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("X-Long: " + "x" * 60_000, b"200"),
        ("X-Long: " + "x" * 70_000, b"400"),
        (f"{H2C}X-Long: " + "x" * 70_000, b"400"),
        ("\r\n".join(f"X-{i}: {'x' * 100}" for i in range(700)), b"400"),
    ],
)
async def test_a_head_that_comes_at_once_is_limited_too(
    state: ServerState, head: str, status: bytes
) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n".encode())
        assert (await reader.readline()).split()[1] == status
        if status == b"400":
            assert b"The head of the request is larger than 65536 bytes; " in await reader.read()
        writer.close()


CHUNKED = f"{HEAD}Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("sent", "status", "why"),
    [
        ("FOO /v1/models HTTP/1.1\r\n\r\n", 400, "Invalid method"),
        ("GET /a b HTTP/1.1\r\n\r\n", 400, "Expected HTTP/"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "this server is not a proxy"),
        (f"{CHUNKED}Content-Length: 3\r\n\r\nabc", 400, "Content-Length can't be present"),
        (f"GET /livez HTTP/1.1\r\nA: {'x' * 70_000}\r\n\r\n", 400, "larger than 65536 bytes"),
        ("GET /livez HTTP/1.1\r\n\r\n", 400, "The header Host is missing"),
        (f"GET /livez HTTP/1.1\r\n{H2C}\r\n", 400, "The header Host is missing"),
        (f"{HEAD}Transfer-Encoding: gzip, chunked\r\n\r\n", 501, "a coding other than chunked"),
        (f"{HEAD}Transfer-Encoding: gzip\r\n\r\n", 501, "a coding other than chunked"),
        (
            f"{HEAD}Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            501,
            "a coding other",
        ),
    ],
)
async def test_what_is_no_request_gets_an_error_that_says_why(
    state: ServerState, sent: str, status: int, why: str
) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent.encode())
        head, _, body = (await asyncio.wait_for(reader.read(), DEADLINE_S)).partition(b"\r\n\r\n")
        writer.close()
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"content-type: application/json" in head and b"connection: close" in head
    assert b"content-length: %d" % len(body) in head
    error = json.loads(body)["error"]
    assert (error["code"], error["param"]) == (status, None)
    assert why in error["message"]


async def test_what_is_no_request_is_told_in_the_form_of_its_api(state: ServerState) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n")
        head, _, body = (await asyncio.wait_for(reader.read(), DEADLINE_S)).partition(b"\r\n\r\n")
        writer.close()
    error = json.loads(body)
    assert error["type"] == "error"
    for name in ("x-request-id", "request-id"):
        assert f"\r\n{name}: {error['request_id']}" in head.decode()


async def test_what_is_no_request_has_the_id_that_its_client_gave_it(
    state: ServerState, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{HEAD}X-Request-Id: mine\r\nTransfer-Encoding: gzip\r\n\r\n".encode())
        assert b"\r\nx-request-id: mine\r\n" in await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
    assert "mine" in caplog.text


LONGER_BODY = json.dumps({"prompt": [5], "max_tokens": 50, "return_token_ids": True})
STREAM_BODY = BODY.replace(str(MOST), "2000")  # more than fits into the sockets' buffers
NO_REQUESTS = [
    ("GARBAGE\r\n\r\n", 400),
    (f"GET /livez HTTP/1.1\r\nHost: a\r\nX-Long: {'x' * 70_000}", 400),
    (f"{HEAD}Transfer-Encoding: gzip\r\n\r\n", 501),
    (f"{HEAD}Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (f"{HEAD}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\nzz\r\n", 400),
]


@pytest.mark.parametrize(("wrong", "status"), NO_REQUESTS)
@pytest.mark.parametrize("num_before", [1, 3])
async def test_what_is_no_request_is_refused_after_the_answers_before_it(
    state: ServerState, wrong: str, status: int, num_before: int
) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        whole = HEAD + in_length(LONGER_BODY)
        writer.write((whole * num_before + wrong + whole).encode())
        answers = [await answer(reader) for _ in range(num_before + 1)]
        assert [one for one, _ in answers] == [200] * num_before + [status]
        assert all(b'"completion_tokens":50' in body for _, body in answers[:-1])
        assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
        writer.close()
        await asyncio.wait_for(until_idle(state), DEADLINE_S)


async def test_no_refusal_comes_between_the_events_of_a_stream(state: ServerState) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HEAD + in_length(STREAM_BODY)).encode())
        received = await reader.readuntil(b"data: ")
        writer.write(b"GARBAGE\r\n\r\n")
        received += await asyncio.wait_for(reader.read(), DEADLINE_S)
        writer.close()
    stream, _, refusal = received.partition(b"HTTP/1.1 400")
    assert stream.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") and refusal


async def test_a_refusal_that_waits_does_not_end_the_stream_before_it(state: ServerState) -> None:
    async with served(state, Short) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HEAD + in_length(BODY)).encode() + b"GARBAGE\r\n\r\n")
        await reader.readuntil(b"data: ")
        end = asyncio.get_running_loop().time() + 2 * Short.read_timeout_s
        while asyncio.get_running_loop().time() < end:
            assert b"HTTP/1.1 400" not in await reader.readuntil(b"\n\n")
        assert len(state.running) == 1
        writer.transport.abort()
        await asyncio.wait_for(until_idle(state), DEADLINE_S)


async def test_an_answered_request_whose_body_is_invalid_is_not_answered_again(
    state: ServerState,
) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = CHUNKED.replace("/v1/completions", "/nowhere")
        writer.write(f"{head}\r\n".encode())
        assert (await answer(reader))[0] == 404
        writer.write(b"zz\r\n")
        assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
        writer.close()


async def test_a_body_in_chunks_is_read(state: ServerState) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        size = f"{len(SHORT_BODY):x}"
        chunked = CHUNKED.replace("chunked", "Chunked ")
        writer.write(f"{chunked}\r\n{size}\r\n{SHORT_BODY}\r\n0\r\n\r\n".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_client_that_sends_slowly_is_not_cut_off(state: ServerState) -> None:
    pieces = [REQUEST[:-8], *REQUEST[-8:]]
    async with served(state, Patient) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for piece in pieces:  # together they take longer than one may
            writer.write(piece.encode())
            await asyncio.sleep(Short.read_timeout_s / 6)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}]")
        writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The status and the body of the next answer of a connection."""
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
    lines = head.split(b"\r\n")
    lengths = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
    return int(lines[0].split()[1]), await reader.readexactly(lengths[0])


def in_length(body: str) -> str:
    return f"Content-Length: {len(body)}\r\n\r\n{body}"


def in_chunks(body: str) -> str:
    half = len(body) // 2
    chunks = [f"{len(part):x}\r\n{part}\r\n" for part in (body[:half], body[half:], "")]
    return "Transfer-Encoding: chunked\r\n\r\n" + "".join(chunks)


@pytest.mark.parametrize("framed", [in_length, in_chunks])
@pytest.mark.parametrize("num_blanks", [0, 300_000])
@pytest.mark.parametrize("piece", [1 << 30, 200, 7])
async def test_an_offer_of_another_protocol_is_ignored(
    state: ServerState,
    caplog: pytest.LogCaptureFixture,
    framed: Callable[[str], str],
    num_blanks: int,
    piece: int,
) -> None:
    offered = HEAD + H2C + framed(SHORT_BODY + " " * num_blanks)
    health = f"GET /livez HTTP/1.1\r\nHost: localhost\r\n{H2C}\r\n"
    sent = (offered + health + offered + REQUEST).encode()
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for begin in range(0, min(len(sent), 1000), piece):  # then the rest in one go
            writer.write(sent[begin : min(begin + piece, 1000)])
            await asyncio.sleep(0)
        writer.write(sent[1000:])
        answers = [await answer(reader) for _ in range(4)]
        assert [status for status, _ in answers] == [200] * 4
        assert all(b'"completion_tokens":1' in answers[i][1] for i in (0, 2, 3))
        writer.close()
    assert caplog.messages == []


async def test_websockets_are_refused_as_the_plain_requests_they_are(
    state: ServerState, caplog: pytest.LogCaptureFixture
) -> None:
    offer = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\n{offer}\r\n".encode())
        assert (await answer(reader))[0] == 405
        writer.write(REQUEST.encode())
        assert (await answer(reader))[0] == 200
        writer.close()
    assert caplog.messages == []


@pytest.mark.parametrize("more", ["", H2C])
async def test_a_tunnel_is_refused(state: ServerState, more: str) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n{more}\r\nx".encode())
        assert (await answer(reader))[0] == 400
        assert await reader.read() == b""
        writer.close()


def endless(stream: bool) -> bytes:
    body = json.dumps({"prompt": [5], "max_tokens": MOST, "stream": stream})
    return (HEAD + in_length(body)).encode()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("is_in_one_go", [True, False])
@pytest.mark.parametrize("num_ahead", [1, 3])
async def test_all_requests_of_a_client_that_leaves_end(
    state: ServerState,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
    is_in_one_go: bool,
    num_ahead: int,
) -> None:
    async with served(state, HttpProtocol) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        requests = [endless(stream)] * (1 + num_ahead)
        for sent in [b"".join(requests)] if is_in_one_go else requests:
            writer.write(sent)
            while not state.require_engine().get_num_unfinished_requests():
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)  # until what was sent ahead is there
        writer.transport.abort()
        await asyncio.wait_for(until_idle(state), DEADLINE_S)
    assert caplog.messages == []


async def test_however_many_requests_are_sent_ahead_all_are_answered(state: ServerState) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(30):
            writer.write(REQUEST.encode())
            await asyncio.sleep(0)
        assert [(await answer(reader))[0] for _ in range(30)] == [200] * 30
        writer.close()


async def test_a_head_behind_a_large_body_is_not_a_large_head(state: ServerState) -> None:
    large, health = HEAD + in_length(SHORT_BODY + " " * 200_000), "GET /livez HTTP/1.1\r\n"
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((large + health).encode())
        assert (await answer(reader))[0] == 200
        writer.write(b"Host: localhost\r\n\r\n")
        assert (await answer(reader))[0] == 200
        writer.close()


async def test_a_stream_before_http_1_1_ends_with_its_connection(state: ServerState) -> None:
    body = json.dumps({"prompt": [5], "max_tokens": 3, "stream": True})
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HEAD + in_length(body)).replace("HTTP/1.1", "HTTP/1.0").encode())
        head, _, events = (await asyncio.wait_for(reader.read(), DEADLINE_S)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200") and b"connection: close" in head
        assert b"transfer-encoding" not in head
        blocks = events.split(b"\n\n")
        assert all(block.startswith(b"data: ") for block in blocks[:-1])
        assert blocks[-2:] == [b"data: [DONE]", b""]
        writer.close()


@pytest.mark.parametrize("method", ["POST", "HEAD"])
async def test_a_whole_answer_before_http_1_1_says_its_length(
    state: ServerState, method: str
) -> None:
    async with served(state) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        old = REQUEST.replace("HTTP/1.1", "HTTP/1.0")
        writer.write((old if method == "POST" else "HEAD /livez HTTP/1.0\r\n\r\n").encode())
        assert (await answer(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), DEADLINE_S) == b""
        writer.close()


class SlowSocket(asyncio.Transport):
    """Takes as much of what waits as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 100_000
        self.is_aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def abort(self) -> None:
        self.is_aborted = True


async def test_a_client_that_reads_slowly_is_not_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def app(scope: object, receive: object, send: object) -> None: ...

    config = uvicorn.Config(app, log_config=None, lifespan="off", ws="none")
    config.load()
    protocol = HttpProtocol(config, uvicorn.server.ServerState(), {})
    protocol.transport = transport = SlowSocket()
    protocol.flow = FlowControl(transport)
    timers: list[Callable[[], None]] = []
    monkeypatch.setattr(
        protocol.loop, "call_later", lambda _, check, size: timers.append(partial(check, size))
    )
    protocol.pause_writing()
    for _ in range(3):
        transport.waiting -= 1  # a byte within the time
        timers.pop()()
        assert not transport.is_aborted
    timers.pop()()
    assert transport.is_aborted and not timers
