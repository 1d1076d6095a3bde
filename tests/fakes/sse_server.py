"""A server for tests of clients: it answers as a test says, piece by piece, and keeps what it saw.

A small asyncio server in a thread, so that a client meets real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Script:
    """One answer. ``pieces`` are written one by one; `then_close` leaves it unfinished."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Sequence[bytes] = ()
    then_close: bool = False
    keeps_alive: bool = True
    has_no_length: bool = False  # its end is that of the connection
    before: bytes = b""  # what is written around it, as it is
    behind: bytes = b""


@dataclass(frozen=True, kw_only=True)
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int  # number of the connection it came by


Answer = Callable[[Seen], Script]


class FakeServer:
    """See the module's docstring; `url` is where it listens."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.seen: list[Seen] = []
        self.port = 0
        self._num_connections = 0
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection, self._num_connections = self._num_connections, self._num_connections + 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                seen = await _read(reader, connection)
                self.seen.append(seen)
                script = self._answer(seen)
                await _write(writer, script)
                if script.then_close or not script.keeps_alive or script.has_no_length:
                    break
        writer.close()

    def close_connections(self) -> None:
        for writer in self._writers:
            writer.close()


@contextlib.contextmanager
def fake_server(answer: Answer) -> Iterator[FakeServer]:
    server = FakeServer(answer)
    loop = asyncio.new_event_loop()
    listening = threading.Event()

    async def run() -> None:
        listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        listening.set()
        try:
            await asyncio.Event().wait()
        finally:
            listener.close()
            server.close_connections()

    main = loop.create_task(run())
    thread = threading.Thread(target=lambda: loop.run_until_complete(_cancelled(main)))
    thread.start()
    listening.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(main.cancel)
        thread.join(10)
        loop.close()


def events(*contents: object) -> list[bytes]:
    """Each as an event; the last of a stream is "[DONE]"."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in contents]
    return [b"data: %b\n\n" % text.encode() for text in texts]


def json_script(content: object, status: int = 200, **headers: str) -> Script:
    return Script(status=status, headers=headers, pieces=[json.dumps(content).encode()])


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Until the task has ended, and all it has left behind."""
    await asyncio.gather(task, return_exceptions=True)
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for one in rest:
        one.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


async def _read(reader: asyncio.StreamReader, connection: int) -> Seen:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    pairs = (line.split(": ", 1) for line in head[1:] if line)
    headers = {name.lower(): value for name, value in pairs}
    data = await reader.readexactly(int(headers.get("content-length", 0)))
    body = json.loads(data) if data else None
    return Seen(method=method, path=path, headers=headers, body=body, connection=connection)


async def _write(writer: asyncio.StreamWriter, script: Script) -> None:
    framing = {} if script.has_no_length else {"Transfer-Encoding": "chunked"}
    closing = {} if script.keeps_alive else {"Connection": "close"}
    headers = {**framing, **closing, **script.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(script.before + f"HTTP/1.1 {script.status} X\r\n{lines}\r\n".encode())
    for piece in script.pieces:
        writer.write(piece if script.has_no_length else b"%x\r\n%b\r\n" % (len(piece), piece))
        await writer.drain()
    if not script.then_close and not script.has_no_length:
        writer.write(b"0\r\n\r\n" + script.behind)
    await writer.drain()
