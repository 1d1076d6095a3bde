"""``/v1/messages``: Anthropic's Messages API, whole or as a stream, and its token counts."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.as_chat import ChatCall, count_tokens, start, whole_completion
from quire.server.error_responses import json_response
from quire.server.messages_input import NAMES, chat_request, prompt_request
from quire.server.messages_stream import error_event, message_events
from quire.server.messages_view import MessageView
from quire.server.protocol.messages import CountTokensRequest, MessagesRequest
from quire.server.sse import EventStream
from quire.server.state import state_of

router = APIRouter(tags=["messages"])

PATH = "/v1/messages"


@router.post(PATH, response_model=None)
async def create_message(body: MessagesRequest, request: Request) -> Response:
    """Answer a conversation, or go on with its last message if that is the assistant's."""
    state = state_of(request)
    call = ChatCall(endpoint=PATH, body=body, chat=chat_request(body), names=NAMES)
    started = await start(request, call)
    view = MessageView(started, state.require_models().max_model_len)
    headers = {**started.headers, "request-id": started.request_id}  # where the clients look
    if body.stream:
        return EventStream(
            started.generation,
            message_events(started.generation, view),
            keep_alive_s=state.args.sse_keep_alive_interval,
            headers=headers,
            error_event=error_event,
        )
    return json_response(view.whole(await whole_completion(request, started)), headers=headers)


@router.post(PATH + "/count_tokens", response_model=None)
async def count_message_tokens(body: CountTokensRequest, request: Request) -> Response:
    """How many tokens the messages have in the model's template."""
    call = ChatCall(endpoint=PATH, body=body, chat=prompt_request(body), names=NAMES)
    num_tokens, headers = await count_tokens(request, call)
    return json_response({"input_tokens": num_tokens}, headers=headers)
