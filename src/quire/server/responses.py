"""``/v1/responses``: OpenAI's Responses API without its state, whole or as a stream."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.as_chat import ChatCall, count_tokens, start, whole_answer
from quire.server.bodies import BodyRoute
from quire.server.error_responses import json_response
from quire.server.errors import not_found
from quire.server.protocol.responses import InputTokensRequest, ResponsesRequest
from quire.server.responses_input import chat_fields, check_logprobs, names, prompt_fields
from quire.server.responses_stream import ResponseStream
from quire.server.responses_view import ResponseView
from quire.server.state import state_of

router = APIRouter(tags=["responses"], route_class=BodyRoute)

PATH = "/v1/responses"


@router.post(PATH, response_model=None)
async def create_response(body: ResponsesRequest, request: Request) -> Response:
    """Answer an input."""
    state = state_of(request)
    call = ChatCall(
        fields=lambda: chat_fields(body),
        names=lambda: names(body),
        leaves_out_turns=body.truncation == "auto",
        check=lambda form: check_logprobs(body, form),
    )
    async with start(request, PATH, body, call) as started:
        view = ResponseView(state, body, started)
        if body.stream:
            stream = ResponseStream(started.generation, view)
            return started.stream(state, stream.run(), stream.failed)
        return await whole_answer(request, started, view.whole)


@router.post(PATH + "/input_tokens", response_model=None)
async def count_input_tokens(body: InputTokensRequest, request: Request) -> Response:
    """How many tokens an input has in the model's template."""
    call = ChatCall(fields=lambda: prompt_fields(body), names=lambda: names(body))
    headers, num_tokens = await count_tokens(request, body, call)
    answer = {"object": "response.input_tokens", "input_tokens": num_tokens}
    return json_response(answer, headers=headers)


@router.get(PATH + "/{response_id}", response_model=None)
@router.delete(PATH + "/{response_id}", response_model=None)
@router.get(PATH + "/{response_id}/input_items", response_model=None)
async def no_stored_response(response_id: str) -> Response:
    """Always 404: no response is kept."""
    raise not_found(
        f"There is no stored response {response_id!r}: the server keeps no state; use what POST "
        "v1/responses has returned."
    )


@router.post(PATH + "/{response_id}/cancel", response_model=None)
async def no_background_response(response_id: str) -> Response:
    """Always 404: no response runs in the background."""
    raise not_found(
        f"There is no background response {response_id!r}: the server keeps no state. To cancel a "
        "running request, close its connection, or POST v1/requests/ID/cancel with its id."
    )
