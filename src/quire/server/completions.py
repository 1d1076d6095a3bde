"""``POST /v1/completions``: prompts continued, whole or as a stream."""

from __future__ import annotations

from dataclasses import replace

from fastapi import APIRouter, Request
from starlette.responses import Response

from quire.server.bodies import BodyRoute
from quire.server.completion_view import CompletionView
from quire.server.completions_stream import CompletionStream
from quire.server.intake import Prepared, check_thinking_budget, start
from quire.server.output_constraint import constraint_field
from quire.server.prompt_tokens import PromptRules, ready_prompts
from quire.server.protocol.completions import CompletionRequest
from quire.server.sampling_fields import completion_params
from quire.server.state import ServerState, state_of
from quire.server.text_prompt import completion_prompts
from quire.server.usage import StreamUsage
from quire.server.whole import built, whole_outputs

router = APIRouter(tags=["completions"], route_class=BodyRoute)

PATH = "/v1/completions"


@router.post(PATH, response_model=None)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Continue one prompt or many."""
    state = state_of(request)
    async with start(request, PATH, body, lambda: _prepared(state, body)) as started:
        generation = started.generation
        envelope = started.envelope("cmpl", state)
        view = CompletionView(state, body, generation.wanted.prompts)
        if body.stream:
            usage = StreamUsage.of(body, state.args.enable_force_include_usage)
            stream = CompletionStream(generation, envelope, body, view, usage)
            return started.stream(state, stream.run())
        outputs = await whole_outputs(request, generation)

        def answer() -> Response:
            return started.whole(
                envelope.answer("text_completion", view.choices(outputs), generation.usage)
            )

        return await built(outputs, answer)


def _prepared(state: ServerState, body: CompletionRequest) -> Prepared:
    engine = state.require_engine()
    params = completion_params(body, engine, state.args)
    check_thinking_budget(state, body)
    rules = PromptRules.of(body, params, "prompt")
    prompts = ready_prompts(engine, completion_prompts(engine, body, rules), rules)
    thoughts = state.formats.thoughts
    if thoughts is not None:
        prompts = [replace(one, thinking=thoughts.after_raw(one, params)) for one in prompts]
    return Prepared(
        prompts=prompts,
        params=params,
        prompt_only=body.max_tokens == 0,
        constraint_field=constraint_field(body),
    )
