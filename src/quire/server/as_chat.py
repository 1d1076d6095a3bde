"""Requests of other APIs (Messages, Responses), converted to chat requests and run as those.

Starts them and counts their tokens; errors name the field that the client sent. Knows neither the
other APIs' bodies nor their answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from quire.outputs import CompletionOutput
from quire.server import intake
from quire.server.answer_form import AnswerForm
from quire.server.chat_prompt import reads_effort, template_of
from quire.server.error_responses import invalid_body
from quire.server.errors import renamed
from quire.server.fields import judge
from quire.server.intake import Prepared, Started, countable_chat, prepared_chat
from quire.server.prompt_tokens import tokenized_for_counting
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body, SamplingBody
from quire.server.responses_truncation import without_oldest_turns
from quire.server.state import ServerState, state_of
from quire.server.whole import built, whole_outputs


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatCall:
    """How a body converts to a chat request."""

    fields: Callable[[], Mapping[str, Any]]
    names: Callable[[], Mapping[str, str]]  # chat field -> its name in the body
    default_effort: str | None = None  # asks for nothing if the template reads no effort
    leaves_out_turns: bool = False  # drop the oldest turns of a conversation that is too long
    check: Callable[[AnswerForm], None] = lambda form: None  # 400 if the API cannot answer so


def start(
    request: Request, endpoint: str, body: SamplingBody, call: ChatCall
) -> AbstractAsyncContextManager[Started]:
    """`intake.start` for a body that converts to a chat request."""
    state = state_of(request)

    def prepare() -> Prepared:
        names = call.names()
        with renamed(names):
            chat = _chat_request(state, call)
            prepared = prepared_chat(state, _within_context(chat, state))
        call.check(prepared.form)
        return replace(prepared, names={**prepared.names, **names})

    return intake.start(request, endpoint, body, prepare)


async def whole_answer(
    request: Request, started: Started, view: Callable[[CompletionOutput], Mapping[str, Any]]
) -> Response:
    """The response to a request for one completion, as ``view`` renders it once it has ended."""
    (output,) = await whole_outputs(request, started.generation)
    return await built([output], lambda: started.whole(view(output.outputs[0])))


async def count_tokens(request: Request, body: Body, call: ChatCall) -> tuple[dict[str, str], int]:
    """The response headers, and the number of tokens of the prompt."""
    state = state_of(request)
    engine = state.require_engine()
    state.require_models().check(body.model)

    def count() -> int:
        with renamed(call.names()):
            chat = countable_chat(state, _chat_request(state, call))
            prompt = tokenized_for_counting(engine, chat)
        return len(prompt.token_ids or ())

    return await intake.read(request, body, count)


def _chat_request(state: ServerState, call: ChatCall) -> ChatCompletionRequest:
    """Convert the body to a chat request and check its fields; 400 for those not supported."""
    try:
        chat = ChatCompletionRequest.model_validate(call.fields())
    except ValidationError as error:
        raise invalid_body(error) from error
    template = template_of(state, chat)
    judge(chat, state.args.strict_fields, template)
    effort = chat.reasoning_effort
    if effort is not None and effort == call.default_effort and not reads_effort(template()):
        chat = chat.model_copy(update={"reasoning_effort": None})
    return without_oldest_turns(state, chat) if call.leaves_out_turns else chat


def _within_context(chat: ChatCompletionRequest, state: ServerState) -> ChatCompletionRequest:
    """Cap ``max_tokens`` at the context length: in these APIs it is only an upper bound."""
    if chat.max_tokens is None:
        return chat
    most = state.require_models().max_model_len
    return chat.model_copy(update={"max_tokens": min(chat.max_tokens, most)})
