"""Streams of events: silence, errors, and the end."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import pytest

from quire.server.errors import bad_request
from quire.server.generation import Generation
from quire.server.sse import DONE, KEEP_ALIVE, EventStream, event


def test_an_event_is_one_line_to_whoever_splits_texts_as_unicode_does() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1))).encode(errors="ignore").decode()
    for text in (everything, "a\u2028b", "\x85", "\u2029\u2029", "\xc2\x85\xe2\x80\xa8"):
        line, *rest = event({text: [text]}).decode().splitlines()
        assert rest == [""] and line.startswith("data: ")
        assert json.loads(line.removeprefix("data: ")) == {text: [text]}
    assert event("caf\xe9 \u2027 \u202a \x84 \U0001f600") == (
        'data: "caf\xe9 \u2027 \u202a \x84 \U0001f600"\n\n'.encode()
    )


class FakeGeneration:
    """Counts what a stream does with it."""

    def __init__(self) -> None:
        self.num_cancelled = 0
        self.num_closed = 0

    def cancel(self) -> None:
        self.num_cancelled += 1

    async def close(self) -> None:
        self.num_closed += 1


class Connection:
    """An ASGI connection that stays, and notes what is sent."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.has_news = asyncio.Event()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def send(self, message: Any) -> None:
        self.messages.append(message)
        self.has_news.set()

    @property
    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.messages)


async def run(
    events: Callable[[Connection], AsyncGenerator[bytes, None]], keep_alive_s: float = 0
) -> tuple[Connection, FakeGeneration]:
    generation, connection = FakeGeneration(), Connection()
    stream = EventStream(
        cast(Generation, generation),
        events(connection),
        keep_alive_s=keep_alive_s,
        headers={"X-Some": "thing"},
    )
    scope = {"type": "http", "path": "/v1/completions", "headers": []}
    await stream(scope, connection.receive, connection.send)
    return connection, generation


async def test_a_stream_starts_with_its_first_event() -> None:
    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        assert connection.messages == []
        yield b"data: 1\n\n"
        assert [one["type"] for one in connection.messages] == [
            "http.response.start",
            "http.response.body",
        ]
        yield DONE

    connection, generation = await run(events)
    assert connection.body == b"data: 1\n\n" + DONE
    assert connection.messages[-1] == {
        "type": "http.response.body",
        "body": b"",
        "more_body": False,
    }
    assert (b"X-Some", b"thing") in connection.messages[0]["headers"]
    assert (generation.num_closed, generation.num_cancelled) == (1, 0)


async def test_silence_is_filled_with_comments() -> None:
    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        await connection.has_news.wait()
        yield DONE

    connection, _ = await run(events, keep_alive_s=0.001)
    assert connection.messages[0]["status"] == 200
    assert connection.body.startswith(KEEP_ALIVE)
    assert connection.body.endswith(DONE)


async def test_an_error_follows_a_comment_that_is_being_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = Connection.send

    async def slowly(connection: Connection, message: Any) -> None:
        connection.has_news.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await note(connection, message)

    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        await connection.has_news.wait()
        raise bad_request("too late for a status")
        yield

    monkeypatch.setattr(Connection, "send", slowly)
    connection, _ = await run(events, keep_alive_s=0.001)
    assert [one["type"] for one in connection.messages[:2]] == [
        "http.response.start",
        "http.response.body",
    ]
    assert connection.body.startswith(KEEP_ALIVE) and connection.body.endswith(DONE)


async def test_a_silence_that_lasts_is_filled_once_an_interval(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    timers: list[Callable[[], None]] = []

    def call_later(seconds: float, callback: Callable[[], None]) -> asyncio.Handle:
        timers.append(callback)
        return loop.call_soon(lambda: None)

    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        for _ in range(3):
            timers.pop()()  # an interval has passed
            await asyncio.sleep(0)
        yield DONE

    monkeypatch.setattr(loop, "call_later", call_later)
    connection, _ = await run(events, keep_alive_s=15)
    assert connection.body == 3 * KEEP_ALIVE + DONE


async def test_a_client_that_reads_nothing_gets_one_comment_to_wait_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    timers: list[Callable[[], None]] = []
    reads, num_begun = asyncio.Event(), 0
    note = Connection.send

    async def send(connection: Connection, message: Any) -> None:
        nonlocal num_begun
        num_begun += 1
        await reads.wait()
        await note(connection, message)

    def call_later(seconds: float, callback: Callable[[], None]) -> asyncio.Handle:
        timers.append(callback)
        return loop.call_soon(lambda: None)

    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        for _ in range(3):
            timers.pop()()
            await asyncio.sleep(0)
        assert num_begun == 1
        reads.set()
        await connection.has_news.wait()
        await asyncio.sleep(0)
        timers.pop()()  # silence again
        await asyncio.sleep(0)
        yield DONE

    monkeypatch.setattr(loop, "call_later", call_later)
    monkeypatch.setattr(Connection, "send", send)
    connection, _ = await run(events, keep_alive_s=15)
    assert connection.body == 2 * KEEP_ALIVE + DONE


async def test_an_error_before_the_first_event_is_an_ordinary_answer() -> None:
    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        raise bad_request("no")
        yield b""

    connection, generation = await run(events)
    assert connection.messages[0]["status"] == 400
    assert b'"message":"no"' in connection.body
    assert generation.num_closed == 1


async def test_an_error_after_it_is_an_event() -> None:
    async def events(connection: Connection) -> AsyncGenerator[bytes, None]:
        yield b"data: 1\n\n"
        raise bad_request("no")

    connection, generation = await run(events)
    assert connection.messages[0]["status"] == 200
    assert connection.body == (
        b'data: 1\n\ndata: {"error":{"message":"no","type":"BadRequestError","param":null,'
        b'"code":400}}\n\n' + DONE
    )
    assert generation.num_closed == 1
