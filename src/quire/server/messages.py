"""``/v1/messages``: Anthropic's Messages API, whole or as a stream, and its token counts."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.as_chat import ChatCall, count_tokens, start, whole_answer
from quire.server.bodies import BodyRoute
from quire.server.error_responses import json_response
from quire.server.messages_input import chat_fields, names, prompt_fields
from quire.server.messages_stream import error_event, message_events
from quire.server.messages_view import MessageView
from quire.server.protocol.messages import CountTokensRequest, MessagesRequest
from quire.server.state import state_of

router = APIRouter(tags=["messages"], route_class=BodyRoute)

PATH = "/v1/messages"
_EFFORT = "high"  # in Anthropic's API the same as none given


@router.post(PATH, response_model=None)
async def create_message(body: MessagesRequest, request: Request) -> Response:
    """Answer a conversation, or go on with its last message if that is the assistant's."""
    state = state_of(request)
    call = ChatCall(
        fields=lambda: chat_fields(body), names=lambda: names(body), default_effort=_EFFORT
    )
    async with start(request, PATH, body, call) as started:
        view = MessageView(state, started)
        if body.stream:
            events = message_events(started.generation, view)
            failed = partial(error_event, request_id=started.request_id)
            return started.stream(state, events, failed)
        return await whole_answer(request, started, view.whole)


@router.post(PATH + "/count_tokens", response_model=None)
async def count_message_tokens(body: CountTokensRequest, request: Request) -> Response:
    """How many tokens the messages have in the model's template."""
    call = ChatCall(
        fields=lambda: prompt_fields(body), names=lambda: names(body), default_effort=_EFFORT
    )
    headers, num_tokens = await count_tokens(request, body, call)
    return json_response({"input_tokens": num_tokens}, headers=headers)
