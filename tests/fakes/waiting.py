"""Waiting for what another thread, process or task does, with an end to the patience."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

DEADLINE_S = 20
_POLL_S = 0.002


async def until(
    condition: Callable[[], bool | Awaitable[bool]], seconds: float = DEADLINE_S
) -> None:
    """In a test with an event loop, which goes on meanwhile."""
    end = time.monotonic() + seconds
    while not await _holds(condition):
        assert time.monotonic() < end, f"it did not come to hold within {seconds} s"
        await asyncio.sleep(_POLL_S)


def wait_until(condition: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
    """In a test without one."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"it did not come to hold within {seconds} s"
        time.sleep(_POLL_S)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    held = condition()
    return held if isinstance(held, bool) else await held
