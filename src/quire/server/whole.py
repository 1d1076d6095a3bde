"""Waiting for the whole of a generation, as long as its client does."""

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

IN_THREAD_TOKENS = 4096  # with those beside them; fewer are told sooner than a thread wakes up


async def built(outputs: Sequence[RequestOutput], build: Callable[[], T]) -> T:
    """The answer that is built of the outputs, beside the event loop if it is a large one."""
    if sum(_size(one) for one in outputs) < IN_THREAD_TOKENS:
        return build()
    return await asyncio.to_thread(build)


def _size(output: RequestOutput) -> int:
    of_prompt = sum(len(one or ()) for one in output.prompt_logprobs or ())
    size = of_prompt * len(output.outputs)  # each choice has them
    for one in output.outputs:
        size += len(one.token_ids) + sum(len(position) for position in one.logprobs or ())
    return size


async def whole_outputs(request: Request, generation: Generation) -> list[RequestOutput]:
    """The output of each prompt; a client that leaves cancels it: `ClientDisconnect`.

    What a server that ends has broken off is no answer: 503, so that clients ask again.
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
