"""The input phase of a request, whose errors are the client's: reading, checking and tokenizing the
body, until the engine has accepted it.

``ValueError`` becomes 400 here, and nowhere else: later ones are errors of the server. All but
small bodies are processed in threads, so that the event loop serves others meanwhile. Work whose
client has left ends at its next `go_on`.
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

IN_THREAD_BYTES = 4096  # of a body; a smaller one takes less time than waking a thread
LARGE_BYTES = 1 << 18
_NUM_LARGE_AT_ONCE = 2
_NUM_OTHERS_AT_ONCE = 8
# Set when nobody waits any more for the work of the current thread.
_UNWANTED: ContextVar[threading.Event | None] = ContextVar("unwanted", default=None)


class Unwanted(Exception):
    """Ends work that nobody waits for."""


class InputPhase:
    """The threads for all requests of one kind. Large inputs have a few of their own, so that they
    do not delay others; queued work whose client leaves never begins."""

    def __init__(self, kind: str) -> None:
        self._for_large = ThreadPoolExecutor(_NUM_LARGE_AT_ONCE, f"quire-large-{kind}")
        self._for_others = ThreadPoolExecutor(_NUM_OTHERS_AT_ONCE, f"quire-{kind}")

    async def do(self, request: Request, num_bytes: int, work: Callable[[], T]) -> T:
        """Run ``work`` on a body of ``num_bytes``, in a thread unless it is small; its value errors
        become 400."""
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
        """Drop the work that has not begun; does not wait for the rest."""
        for threads in (self._for_large, self._for_others):
            threads.shutdown(wait=False, cancel_futures=True)


def go_on() -> None:
    """To be called between pieces of work: raises `Unwanted` if nobody waits for the rest."""
    unwanted = _UNWANTED.get()
    if unwanted is not None and unwanted.is_set():
        raise Unwanted


@contextlib.contextmanager
def input_errors(fields: Container[str] = ()) -> Iterator[None]:
    """Turn value errors raised inside into 400; a message that begins with one of ``fields`` gives
    the ``param``."""
    try:
        yield
    except RecursionError as error:
        raise bad_request(
            "The request cannot be read: its arrays and objects are nested too deeply."
        ) from error
    except (ValueError, OverflowError) as error:
        raise bad_value(error, fields) from error


async def _unless_left(request: Request, done: asyncio.Future[T]) -> T:
    """The result; `ClientDisconnect` if the client leaves before it is there."""
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
    """Return when the client has disconnected; the body must have been read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _beside(work: Callable[[], T], unwanted: threading.Event) -> T:
    """Run the work in a thread of a pool, with ``unwanted`` for its `go_on`."""
    before = _UNWANTED.set(unwanted)
    try:
        return _judged(work)
    finally:
        _UNWANTED.reset(before)


def _judged(work: Callable[[], T]) -> T:
    with input_errors():
        return work()
