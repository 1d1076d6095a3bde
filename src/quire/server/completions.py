"""``POST /v1/completions``: prompts continued, whole or as a stream."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.completion_view import CompletionView
from quire.server.completions_stream import CompletionStream
from quire.server.envelope import Envelope, priority_of, request_id_of
from quire.server.error_responses import json_response
from quire.server.fields import ignored_headers, judge
from quire.server.generation import Generation, Job
from quire.server.prompt_tokens import PromptRules, ready_prompts
from quire.server.protocol.completions import CompletionRequest
from quire.server.sampling_fields import completion_params
from quire.server.sse import EventStream
from quire.server.state import state_of
from quire.server.text_prompt import completion_prompts
from quire.server.whole import whole_outputs

router = APIRouter(tags=["completions"])

PATH = "/v1/completions"


@router.post(PATH, response_model=None)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue one prompt or many."""
    state = state_of(request)
    engine, args = state.require_engine(), state.args
    model = state.require_models().check(body.model)
    headers = ignored_headers(judge(body, args.strict_fields), args.strict_fields)
    params = completion_params(body, engine, args)
    prompts = await completion_prompts(engine, body)
    prompts = await ready_prompts(engine, prompts, PromptRules.of(body, "prompt"))
    request_id = request_id_of(request, body.request_id)
    envelope = Envelope.of("cmpl", request_id, model, engine)
    view = CompletionView(state, body, prompts)
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
            prompt_only=body.max_tokens == 0,
        ),
    )
    if body.stream:
        events = CompletionStream(generation, envelope, body, view).run()
        return EventStream(
            generation, events, keep_alive_s=args.sse_keep_alive_interval, headers=headers
        )
    outputs = await whole_outputs(request, generation)
    answer = {
        **envelope.head("text_completion"),
        "choices": view.choices(outputs),
        "service_tier": None,
        "system_fingerprint": envelope.fingerprint,
        "usage": generation.usage.as_dict(),
    }
    return json_response(answer, headers=headers)
