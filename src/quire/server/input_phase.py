"""The part of a request in which what goes wrong is the client's to mend: reading, checking and
tokenizing what was sent, until the engine has taken it.

Plain errors of values become 400 here, and nowhere else: later ones are the server's own. Much work
is done in a thread: the event loop serves others meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from quire.server.errors import bad_request, bad_value

T = TypeVar("T")

IN_THREAD_BYTES = 4096  # of a body; less is done with sooner than a thread wakes up
LARGE_BYTES = 1 << 18
_NUM_LARGE_AT_ONCE = 2


class InputPhase:
    """Of all requests of one server. Few large inputs are worked on at once, in threads of their
    own, so that many of them keep no others waiting; those whose client leaves never begin."""

    def __init__(self) -> None:
        self._for_large = ThreadPoolExecutor(_NUM_LARGE_AT_ONCE, "quire-large-input")

    async def do(self, request: Request, num_bytes: int, work: Callable[[], T]) -> T:
        """Do the work that a body of so many bytes makes; its errors are the client's."""
        if num_bytes < IN_THREAD_BYTES:
            return _judged(work)
        if num_bytes < LARGE_BYTES:
            return await asyncio.to_thread(_judged, work)
        done = asyncio.get_running_loop().run_in_executor(self._for_large, _judged, work)
        leaving = asyncio.create_task(_has_left(request))
        either: list[asyncio.Future[Any]] = [done, leaving]
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            has_left = done.cancel()  # what has begun goes on, for nobody
        if has_left:
            raise ClientDisconnect
        return done.result()

    def close(self) -> None:
        """What has not begun never will."""
        self._for_large.shutdown(wait=False, cancel_futures=True)


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


async def _has_left(request: Request) -> None:
    """Returns when the client of a request, whose body was read, has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _judged(work: Callable[[], T]) -> T:
    with input_errors():
        return work()
