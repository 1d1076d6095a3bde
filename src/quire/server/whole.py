"""Waiting for the whole of a generation, as long as its client does."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from quire.outputs import RequestOutput
from quire.server.generation import Generation
from quire.server.sse import cancel_on_disconnect


async def whole_outputs(request: Request, generation: Generation) -> list[RequestOutput]:
    """The output of each prompt; a client that leaves cancels it."""
    leaving = asyncio.create_task(cancel_on_disconnect(request.receive, generation))
    try:
        return await generation.results()
    finally:
        leaving.cancel()
