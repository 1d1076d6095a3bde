"""Waits for a complete generation, as long as its client stays connected, and has large answers
built in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from quire.outputs import CompletionOutput, PromptLogprobs, RequestOutput
from quire.server.errors import broken_off
from quire.server.generation import Generation
from quire.server.sse import leave_on_disconnect
from quire.server.state import Phase, state_of

T = TypeVar("T")

IN_THREAD_TOKENS = 4096  # with their alternatives; fewer take less time than starting a thread


async def built(outputs: Sequence[RequestOutput], build: Callable[[], T]) -> T:
    """The result of ``build``, which runs in a thread if the outputs are large."""
    size = 0
    for output in outputs:
        of_prompt = prompt_size(output.prompt_logprobs)  # repeated in each choice
        size += sum(of_prompt + completion_size(one) for one in output.outputs)
    if size < IN_THREAD_TOKENS:
        return build()
    return await asyncio.to_thread(build)


def prompt_size(logprobs: PromptLogprobs | None) -> int:
    """Log-probabilities of a prompt, counted."""
    return sum(len(one or ()) for one in logprobs or ())


def completion_size(one: CompletionOutput) -> int:
    """Tokens of one output and their log-probabilities, counted."""
    return len(one.token_ids) + sum(len(position) for position in one.logprobs or ())


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
