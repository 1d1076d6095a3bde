"""Requests of other APIs, answered as the chat requests that they become: one path for all of them.

Owns their start and the counting of their tokens; an error names the field that the client sent.
Knows neither the other APIs' bodies nor their answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from starlette.requests import Request

from quire.outputs import CompletionOutput
from quire.server import intake
from quire.server.chat_prompt import chat_prompt
from quire.server.errors import HTTPError
from quire.server.fields import judge
from quire.server.intake import Prepared, Started, prepared_chat
from quire.server.prompt_tokens import tokenized
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body, SamplingBody
from quire.server.state import ServerState, state_of
from quire.server.whole import whole_outputs


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatCall:
    """The chat request that a body means."""

    make: Callable[[], ChatCompletionRequest]
    names: Mapping[str, str]  # fields of the chat request -> what the body calls them


def start(
    request: Request, endpoint: str, body: SamplingBody, call: ChatCall
) -> AbstractAsyncContextManager[Started]:
    """`intake.start` for what such a body means."""
    state = state_of(request)

    def prepare() -> Prepared:
        with own_names(call.names):
            chat = _judged(state, call)
            prepared = prepared_chat(state, _within_context(chat, state))
        name = prepared.constraint_field or ""
        return replace(prepared, constraint_field=call.names.get(name, name or None))

    return intake.start(request, endpoint, body, prepare)


async def whole_completion(request: Request, started: Started) -> CompletionOutput:
    """The one completion, when it has ended."""
    (output,) = await whole_outputs(request, started.generation)
    return output.outputs[0]


async def count_tokens(request: Request, body: Body, call: ChatCall) -> tuple[dict[str, str], int]:
    """The headers to answer with, and how many tokens the prompt has."""
    state = state_of(request)
    engine = state.require_engine()
    state.require_models().check(body.model)

    def count() -> int:
        with own_names(call.names):
            (prompt,) = tokenized(engine, [chat_prompt(state, _judged(state, call))])
        return len(prompt.token_ids or ())

    return await intake.read(request, body, count)


def _judged(state: ServerState, call: ChatCall) -> ChatCompletionRequest:
    """What a body says in its own words may not be built either."""
    chat = call.make()
    judge(chat, state.args.strict_fields)
    return chat


def _within_context(chat: ChatCompletionRequest, state: ServerState) -> ChatCompletionRequest:
    """These APIs know the number of tokens as a bound, which may well be above what can be had."""
    if chat.max_tokens is None:
        return chat
    most = state.require_models().max_model_len
    return chat.model_copy(update={"max_tokens": min(chat.max_tokens, most)})


@contextlib.contextmanager
def own_names(names: Mapping[str, str]) -> Iterator[None]:
    """Errors about fields of the chat request, told as the client knows these fields."""
    try:
        yield
    except HTTPError as error:
        name = error.param or ""
        if name in names:
            error.param = names[name]
            if error.message.startswith(name):
                error.message = names[name] + error.message.removeprefix(name)
        raise
