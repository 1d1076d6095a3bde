"""The part of a request in which what goes wrong is the client's to mend: reading, checking and
tokenizing what was sent, until the engine has taken it.

Plain errors of values become 400 here, and nowhere else: later ones are the server's own. Much work
is done in a thread: the event loop serves others meanwhile. What nobody waits for any more ends at
the next `go_on` that it comes to.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from quire.server.errors import bad_request, bad_value

T = TypeVar("T")

IN_THREAD_BYTES = 4096  # of a body; less is done with sooner than a thread wakes up
LARGE_BYTES = 1 << 18
_NUM_LARGE_AT_ONCE = 2
_NUM_OTHERS_AT_ONCE = 8
# Of the work that the current thread does: set when nobody waits for it any more.
_UNWANTED: ContextVar[threading.Event | None] = ContextVar("unwanted", default=None)


class Unwanted(Exception):
    """Ends work that nobody waits for."""


class InputPhase:
    """Of all requests of one kind. Few large inputs are worked on at once, in threads of their
    own, so that many of them keep no others waiting; those whose client leaves never begin."""

    def __init__(self, kind: str) -> None:
        self._for_large = ThreadPoolExecutor(_NUM_LARGE_AT_ONCE, f"quire-large-{kind}")
        self._for_others = ThreadPoolExecutor(_NUM_OTHERS_AT_ONCE, f"quire-{kind}")

    async def do(self, request: Request, num_bytes: int, work: Callable[[], T]) -> T:
        """Do the work that a body of so many bytes makes; its errors are the client's."""
        if num_bytes < IN_THREAD_BYTES:
            return _judged(work)
        is_large = num_bytes >= LARGE_BYTES
        threads = self._for_large if is_large else self._for_others
        unwanted = threading.Event()
        done = asyncio.get_running_loop().run_in_executor(threads, _beside, work, unwanted)
        try:
            return await (_unless_left(request, done) if is_large else done)
        finally:
            unwanted.set()

    def close(self) -> None:
        """What has not begun never will."""
        for threads in (self._for_large, self._for_others):
            threads.shutdown(wait=False, cancel_futures=True)


def go_on() -> None:
    """Between two pieces of work: `Unwanted` if nobody waits for the rest."""
    unwanted = _UNWANTED.get()
    if unwanted is not None and unwanted.is_set():
        raise Unwanted


@contextlib.contextmanager
def input_errors(fields: Container[str] = ()) -> Iterator[None]:
    """Plain errors in here are about what the client has sent; ``fields`` are those that their
    messages may begin with."""
    try:
        yield
    except RecursionError as error:
        raise bad_request(
            "The request cannot be read: its arrays and objects are nested too deeply."
        ) from error
    except (ValueError, OverflowError) as error:
        raise bad_value(error, fields) from error


async def _unless_left(request: Request, done: asyncio.Future[T]) -> T:
    """The result, if the client waits for it."""
    leaving = asyncio.create_task(_has_left(request))
    either: list[asyncio.Future[Any]] = [done, leaving]
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        has_left = done.cancel()
    if has_left:
        raise ClientDisconnect
    return done.result()


async def _has_left(request: Request) -> None:
    """Returns when the client of a request, whose body was read, has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _beside(work: Callable[[], T], unwanted: threading.Event) -> T:
    """The work in a thread that does one after the other."""
    before = _UNWANTED.set(unwanted)
    try:
        return _judged(work)
    finally:
        _UNWANTED.reset(before)


def _judged(work: Callable[[], T]) -> T:
    with input_errors():
        return work()
