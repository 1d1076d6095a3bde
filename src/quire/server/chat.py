"""``POST /v1/chat/completions``: conversations answered, whole or as a stream."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.bodies import BodyRoute
from quire.server.chat_stream import ChatStream
from quire.server.chat_view import ChatView
from quire.server.intake import prepared_chat, start
from quire.server.logprobs import prompt_logprobs
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.state import state_of
from quire.server.usage import StreamUsage
from quire.server.whole import built, whole_outputs

router = APIRouter(tags=["chat"], route_class=BodyRoute)

PATH = "/v1/chat/completions"


@router.post(PATH, response_model=None)
async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """Answer a conversation."""
    state = state_of(request)
    async with start(request, PATH, body, lambda: prepared_chat(state, body)) as started:
        envelope = started.envelope("chatcmpl", state)
        view = ChatView(state, body, started.form, started.generation.usage)
        if body.stream:
            usage = StreamUsage.of(body, state.args.enable_force_include_usage)
            stream = ChatStream(started.generation, envelope, view, usage)
            return started.stream(state, stream.run())
        (output,) = await whole_outputs(request, started.generation)

        def answer() -> Response:
            choices = view.choices(output)  # first: this adds to the usage
            content = envelope.answer("chat.completion", choices, started.generation.usage)
            content["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
            prompt = started.generation.wanted.prompts[0]
            return started.whole(content | view.prompt_facts(prompt))

        return await built([output], answer)
