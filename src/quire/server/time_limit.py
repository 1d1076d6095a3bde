"""How long a request may take: `--request-timeout`, from the arrival of its head.

Enforces it until there is a generation, which then enforces it itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import Request

from quire.server.errors import timed_out
from quire.server.state import state_of

T = TypeVar("T")

FLAG = "--request-timeout"


async def within_time(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; 408 if the request runs out of time first."""
    seconds = state_of(request).args.request_timeout
    if seconds is None:
        return await work
    left = arrived(request) + seconds - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(work, max(left, 0))
    except asyncio.TimeoutError:
        raise timed_out(FLAG, seconds) from None


def arrived(request: Request) -> float:
    """When the head of the request arrived, in the event loop's seconds."""
    return float(request.state.arrived)
