"""How long a request may take: `--request-timeout`, from its head on.

Owns the time before there is a generation, which then cuts itself off.
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
    """What comes of it; 408 when the request has had its time before."""
    seconds = state_of(request).args.request_timeout
    if seconds is None:
        return await work
    left = arrived(request) + seconds - asyncio.get_running_loop().time()
    try:
        return await asyncio.wait_for(work, max(left, 0))
    except asyncio.TimeoutError:
        raise timed_out(FLAG, seconds) from None


def arrived(request: Request) -> float:
    """When the head of the request was there, in the loop's seconds."""
    return float(request.state.arrived)
