"""``POST /v1/chat/completions``: conversations answered, whole or as a stream."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.outputs import RequestOutput
from quire.prompts import ParsedPrompt
from quire.server.chat_prompt import chat_prompt
from quire.server.chat_stream import ChatStream
from quire.server.chat_view import ChatView
from quire.server.envelope import Envelope, priority_of, request_id_of
from quire.server.error_responses import json_response
from quire.server.fields import ignored_headers, judge
from quire.server.generation import Generation, Job
from quire.server.logprobs import prompt_logprobs
from quire.server.prompt_tokens import PromptRules, ready_prompts
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.sampling_fields import chat_params
from quire.server.sse import EventStream
from quire.server.state import state_of
from quire.server.whole import whole_outputs

router = APIRouter(tags=["chat"])

PATH = "/v1/chat/completions"


@router.post(PATH, response_model=None)
async def chat_completions(body: ChatCompletionRequest, request: Request) -> Response:
    """Answer a conversation."""
    state = state_of(request)
    engine, args = state.require_engine(), state.args
    model = state.require_models().check(body.model)
    headers = ignored_headers(judge(body, args.strict_fields), args.strict_fields)
    params = chat_params(body, engine, args)
    prompts = [await chat_prompt(state, body)]
    prompts = await ready_prompts(engine, prompts, PromptRules.of(body, "messages"))
    request_id = request_id_of(request, body.request_id)
    envelope = Envelope.of("chatcmpl", request_id, model, engine)
    view = ChatView(state, body)
    generation = await Generation.start(
        state,
        Job(
            endpoint=PATH,
            model=model,
            request_id=request_id,
            prompts=prompts,
            params=params,
            priority=priority_of(request, body.priority),
            timeout_s=body.timeout_s,
            queue_timeout_s=body.queue_timeout_s,
        ),
    )
    if body.stream:
        events = ChatStream(generation, envelope, body, view, prompts[0]).run()
        return EventStream(
            generation, events, keep_alive_s=args.sse_keep_alive_interval, headers=headers
        )
    (output,) = await whole_outputs(request, generation)
    answer = {
        **envelope.head("chat.completion"),
        "choices": view.choices(output),
        "service_tier": None,
        "system_fingerprint": envelope.fingerprint,
        "usage": generation.usage.as_dict(),
        **_prompt_facts(body, prompts[0], output),
    }
    return json_response(answer, headers=headers)


def _prompt_facts(
    body: ChatCompletionRequest, prompt: ParsedPrompt, output: RequestOutput
) -> dict[str, Any]:
    return {
        "prompt_logprobs": prompt_logprobs(output.prompt_logprobs),
        "prompt_token_ids": prompt.token_ids if body.return_token_ids else None,
        "prompt_text": prompt.text if body.return_prompt_text else None,
    }
