"""The HTTP processes of one server, seen from one of them: how much runs in all, and where.

Each one's number of requests, whether it still loads, and whether it answers the others, are in
memory that all of them map, so that checking the queue limit costs nothing. Anything else is asked
over Unix sockets in a common folder. Knows no HTTP. A server with a single process has no folder
and no peers.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec

from quire.server.errors import conflict, unavailable

_ITEM_BYTES = 8
_NUM_ROWS = 3
_RUNNING, _LOADING, _ANSWERING = range(_NUM_ROWS)
_PATIENCE_S = 2.0  # a process that hangs must not hang the others
_MAX_ANSWER = 64 << 20  # bytes
_MAX_QUESTION = 1 << 20  # an id may be as long as a path, and longer where it is escaped

Rows = list[dict[str, Any]]


class Place(msgspec.Struct, frozen=True):
    """Where one process stands among the others."""

    folder: str
    index: int
    num_processes: int
    counts_fd: int  # of a file without a name, inherited: nobody can remove it

    @classmethod
    def make_all(cls, folder: str, counts_fd: int, num_processes: int) -> list[Place]:
        """A place for each process; ``folder`` and the file ``counts_fd`` must be empty."""
        os.write(counts_fd, bytes(_ITEM_BYTES * _NUM_ROWS * num_processes))
        places = [cls(folder, index, num_processes, counts_fd) for index in range(num_processes)]
        for place in places:
            Counts(place, _LOADING).set(1)
        return places

    def vacate(self) -> None:
        """Reset the numbers of a process that has ended."""
        for row in range(_NUM_ROWS):
            Counts(self, row).set(0)


class Counts:
    """A number for each process. Each writes only its own, so no lock is needed."""

    def __init__(self, place: Place | None = None, row: int = _RUNNING) -> None:
        self._index = 0 if place is None else place.index
        length = 1 if place is None else place.num_processes
        num_bytes = _ITEM_BYTES * _NUM_ROWS * length
        buffer: bytearray | mmap.mmap = bytearray(num_bytes)
        if place is not None:
            buffer = mmap.mmap(place.counts_fd, num_bytes)
        self._numbers = memoryview(buffer).cast("q")[row * length : (row + 1) * length]

    def set(self, number: int) -> None:
        """Set the number of this process."""
        self._numbers[self._index] = number

    def of(self, index: int) -> int:
        """The number of any process."""
        return self._numbers[index]

    @property
    def total(self) -> int:
        return sum(self._numbers)


class Loading:
    """Which processes accept connections while they load: any client may reach one of them."""

    def __init__(self, place: Place | None) -> None:
        self._counts = Counts(place, _LOADING)

    def set(self, is_loading: bool) -> None:
        """Set the flag of this process."""
        self._counts.set(int(is_loading))

    @property
    def is_anyone(self) -> bool:
        return self._counts.total > 0


class Table(Protocol):
    """The requests that run in one process."""

    def rows(self) -> Rows: ...

    def named(self, name: str) -> list[str]:
        """The server's ids of the requests that ``name`` refers to."""
        ...

    def cancel(self, request_id: str) -> None:
        """Cancel the request with this server id, if it runs here."""
        ...


class _Ask(msgspec.Struct, frozen=True):
    """A question of one process to another."""

    method: str  # of the other's `Table`
    arguments: tuple[str, ...] = ()


class Peers:
    """Asks the other processes about their requests, and answers them from this one's table."""

    def __init__(self, place: Place | None, table: Table) -> None:
        self._answers: dict[str, Callable[..., object]] = {
            "rows": table.rows,
            "named": table.named,
            "cancel": table.cancel,
        }
        self._own: Path | None = None
        self._others: dict[int, Path] = {}
        if place is not None:
            paths = [Path(place.folder, f"peer-{i}") for i in range(place.num_processes)]
            self._others = dict(enumerate(paths))
            self._own = self._others.pop(place.index)
        self._answering = Counts(place, _ANSWERING)
        self._server: asyncio.AbstractServer | None = None

    async def listen(self) -> None:
        """Answer the others from now on, in this event loop."""
        if self._own is not None:
            self._own.unlink(missing_ok=True)  # of a process that was killed
            self._server = await asyncio.start_unix_server(
                self._serve, self._own, limit=_MAX_QUESTION
            )
            self._answering.set(1)

    async def close(self) -> None:
        self._answering.set(0)
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def rows(self) -> Rows:
        """What runs in all processes."""
        return [row for rows in await self._ask_all("rows") for row in rows]

    async def cancel(self, name: str) -> str | None:
        """Cancel a request in whichever process it runs; returns its server id, or None if there is
        none. 409 if ``name`` refers to several."""
        found = {own_id for own_ids in await self._ask_all("named", name) for own_id in own_ids}
        if len(found) > 1:
            raise conflict(
                f"{len(found)} requests with the id {name!r} are running: "
                f"{', '.join(sorted(found))}; cancel one by the id in its answer."
            )
        own_id = next(iter(found), None)
        if own_id is not None:
            # A client may send one id to two processes, and then these cannot be told apart.
            await self._ask_all("cancel", own_id)
        return own_id

    async def _ask_all(self, method: str, *arguments: str) -> list[Any]:
        """The answers of this process and of all the others that are there; 503 if one of them
        cannot be asked, since a part of the answers would look like all."""
        own = self._answers[method](*arguments)
        line = msgspec.json.encode(_Ask(method, arguments)) + b"\n"
        try:
            answers = await asyncio.wait_for(
                asyncio.gather(*(_answer(path, line) for path in self._others.values())),
                _PATIENCE_S,
            )
        except asyncio.TimeoutError:
            raise unavailable("Another HTTP process does not answer; try again later.") from None
        for index, answer in zip(self._others, answers, strict=True):
            if not answer and self._answering.of(index):
                raise unavailable(
                    "Another HTTP process cannot be reached; try again later, and restart the "
                    "server if that does not help."
                )
        return [own, *(msgspec.json.decode(one) for one in answers if one)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            line = await reader.readline()
            if not line.endswith(b"\n"):  # from a process that is exiting
                return
            ask = msgspec.json.decode(line, type=_Ask)
            answer = self._answers[ask.method](*ask.arguments)
            writer.write(msgspec.json.encode(answer) + b"\n")
            await writer.drain()


async def _answer(path: Path, line: bytes) -> bytes:
    """The answer of one process, a line; empty if the process is absent or exiting."""
    try:
        reader, writer = await asyncio.open_unix_connection(path, limit=_MAX_ANSWER)
        with contextlib.closing(writer):
            writer.write(line)
            answer = await reader.readline()
    except OSError:
        return b""
    return answer if answer.endswith(b"\n") else b""
