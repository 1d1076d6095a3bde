"""Requests of other APIs, answered as the chat requests that they become: one path for all of them.

Owns their start and the counting of their tokens; an error names the field that the client sent.
Knows neither the other APIs' bodies nor their answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from starlette.requests import Request

from quire.outputs import CompletionOutput
from quire.server.chat_prompt import chat_prompt
from quire.server.envelope import priority_of, request_id_of
from quire.server.errors import HTTPError
from quire.server.fields import ignored_headers, judge
from quire.server.generation import Generation, Job
from quire.server.prompt_tokens import PromptRules, ready_prompts, tokenized
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body
from quire.server.sampling_fields import chat_params
from quire.server.state import ServerState, state_of
from quire.server.whole import whole_outputs


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatCall:
    """A body and the chat request that it means."""

    endpoint: str  # its path
    body: Body  # as it came
    chat: ChatCompletionRequest
    names: Mapping[str, str]  # fields of the chat request -> what the body calls them


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A call that runs."""

    generation: Generation
    model: str  # the name under which it was asked for
    request_id: str
    headers: dict[str, str]  # to answer with


async def start(request: Request, call: ChatCall) -> Started:
    """Check everything, render the prompt and give it to the engine."""
    state = state_of(request)
    engine = state.require_engine()
    model, headers = _checked(state, call)
    chat = _within_context(call.chat, engine.model_config.max_model_len)
    with own_names(call.names):
        params = chat_params(chat, engine, state.args)
        rules = PromptRules.of(chat, "messages")
        prompts = await ready_prompts(engine, [await chat_prompt(state, chat)], rules)
    request_id = request_id_of(request, chat.request_id)
    generation = await Generation.start(
        state,
        Job(
            endpoint=call.endpoint,
            model=model,
            request_id=request_id,
            prompts=prompts,
            params=params,
            priority=priority_of(request, chat.priority),
            timeout_s=chat.timeout_s,
            queue_timeout_s=chat.queue_timeout_s,
        ),
    )
    return Started(generation=generation, model=model, request_id=request_id, headers=headers)


async def whole_completion(request: Request, started: Started) -> CompletionOutput:
    """The one completion, when it has ended."""
    (output,) = await whole_outputs(request, started.generation)
    return output.outputs[0]


async def count_tokens(request: Request, call: ChatCall) -> tuple[int, dict[str, str]]:
    """How many tokens the prompt has, and the headers to answer with."""
    state = state_of(request)
    engine = state.require_engine()
    _, headers = _checked(state, call)
    with own_names(call.names):
        (prompt,) = await tokenized(engine, [await chat_prompt(state, call.chat)])
    return len(prompt.token_ids or ()), headers


def _checked(state: ServerState, call: ChatCall) -> tuple[str, dict[str, str]]:
    """The model's name and the headers; 404 or 400 if model or fields are wrong."""
    strict = state.args.strict_fields
    model = state.require_models().check(call.body.model)
    ignored = judge(call.body, strict)
    with own_names(call.names):
        judge(call.chat, strict)  # what the body says in its own words may not be built either
    return model, ignored_headers(ignored, strict)


def _within_context(chat: ChatCompletionRequest, max_model_len: int) -> ChatCompletionRequest:
    """These APIs know the number of tokens as a bound, which may well be above what can be had."""
    if chat.max_tokens is None:
        return chat
    return chat.model_copy(update={"max_tokens": min(chat.max_tokens, max_model_len)})


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
