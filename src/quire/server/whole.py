"""Waits for a complete generation, as long as its client stays connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from quire.outputs import RequestOutput
from quire.server.errors import broken_off
from quire.server.generation import Generation
from quire.server.sse import leave_on_disconnect
from quire.server.state import Phase, state_of

T = TypeVar("T")

IN_THREAD_TOKENS = 4096  # with their alternatives; fewer take less time than starting a thread


async def built(outputs: Sequence[RequestOutput], build: Callable[[], T]) -> T:
    """The result of ``build``, which runs in a thread if the outputs are large."""
    if sum(_size(one) for one in outputs) < IN_THREAD_TOKENS:
        return build()
    return await asyncio.to_thread(build)


def _size(output: RequestOutput) -> int:
    of_prompt = sum(len(one or ()) for one in output.prompt_logprobs or ())
    size = of_prompt * len(output.outputs)  # repeated in each choice
    for one in output.outputs:
        size += len(one.token_ids) + sum(len(position) for position in one.logprobs or ())
    return size


async def whole_outputs(request: Request, generation: Generation) -> list[RequestOutput]:
    """The output of each prompt; a client that leaves cancels it: `ClientDisconnect`.

    503 for outputs that the server's shutdown aborted, so that clients retry.
    """
    leaving = asyncio.create_task(leave_on_disconnect(request.receive, generation))
    try:
        outputs = await generation.results()
    finally:
        has_left = not leaving.cancel()
    if has_left:
        raise ClientDisconnect
    is_broken_off = any(one.finish_reason == "abort" for each in outputs for one in each.outputs)
    if is_broken_off and state_of(request).phase is Phase.DRAINING:
        raise broken_off()
    return outputs
