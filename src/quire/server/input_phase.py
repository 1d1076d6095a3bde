"""The part of a request in which what goes wrong is the client's to mend: reading, checking and
tokenizing what was sent, until the engine has taken it.

Plain errors of values become 400 here, and nowhere else: later ones are the server's own. Much work
is done in a thread: the event loop serves others meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import TypeVar

from quire.server.errors import bad_request

T = TypeVar("T")

MUCH = 4096  # bytes of a body; less is done with sooner than a thread wakes up


async def input_phase(num_bytes: int, work: Callable[[], T]) -> T:
    """Do the work that a body of so many bytes makes; its errors are the client's."""
    if num_bytes < MUCH:
        return _judged(work)
    return await asyncio.to_thread(_judged, work)


@contextlib.contextmanager
def input_errors() -> Iterator[None]:
    """Plain errors in here are about what the client has sent."""
    try:
        yield
    except RecursionError as error:
        raise bad_request(
            "The request cannot be read: its arrays and objects are nested too deeply."
        ) from error
    except (ValueError, OverflowError) as error:
        raise bad_request(str(error)) from error


def _judged(work: Callable[[], T]) -> T:
    with input_errors():
        return work()
