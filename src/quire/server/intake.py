"""From a body to a generation that runs: what all generating endpoints do in the same way.

Checks the model, takes a ticket, judges fields, has the prompt made, and gives it to the engine.
Knows no body in particular: how its prompt is made is passed in.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from quire.prompts import ParsedPrompt
from quire.sampling_params import SamplingParams
from quire.server.answer_form import AnswerForm
from quire.server.chat_prompt import chat_prompt, template_of
from quire.server.envelope import Envelope, priority_of, request_id_of
from quire.server.error_responses import json_response
from quire.server.fields import ignored_headers, judge
from quire.server.generation import Generation, Job
from quire.server.input_phase import input_phase
from quire.server.output_constraint import constrained, constraint_field, verify
from quire.server.prompt_tokens import PromptRules, ready_prompts
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body, SamplingBody
from quire.server.sampling_fields import chat_params
from quire.server.sse import Events, EventStream, FailedEvent, openai_error
from quire.server.state import ServerState, state_of
from quire.server.tickets import Ticket

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a body asks of the engine."""

    prompts: list[ParsedPrompt]  # with token ids
    params: SamplingParams
    prompt_only: bool = False  # the one token that the engine makes is not shown
    form: AnswerForm = field(default_factory=AnswerForm)
    constraint_field: str | None = None  # of the body, that constrains the answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A request that runs."""

    generation: Generation
    model: str  # the name under which it was asked for
    request_id: str
    headers: dict[str, str]  # to answer with
    form: AnswerForm

    def envelope(self, prefix: str, state: ServerState) -> Envelope:
        return Envelope.of(prefix, self.request_id, self.model, state.require_engine())

    def stream(
        self, state: ServerState, events: Events, error_event: FailedEvent = openai_error
    ) -> EventStream:
        """The answer as it grows."""
        return EventStream(
            self.generation,
            events,
            keep_alive_s=state.args.sse_keep_alive_interval,
            headers=self.headers,
            error_event=error_event,
        )

    def whole(self, content: object) -> Response:
        """The answer at its end."""
        return json_response(content, headers=self.headers)


@contextlib.asynccontextmanager
async def start(
    request: Request, endpoint: str, body: SamplingBody, prepare: Callable[[], Prepared]
) -> AsyncIterator[Started]:
    """Give the engine what ``prepare`` makes of the body, which may be done in a thread.

    An error inside ends the generation; otherwise it goes on, to be read by a stream.
    """
    state = state_of(request)
    model = state.require_models().check(body.model)
    priority = priority_of(request, body.priority)
    ticket = Ticket.take(state, endpoint, model, request_id_of(request, body.request_id))
    try:
        headers, prepared = await read(request, body, prepare)
        await verify(state.require_engine(), prepared.params, prepared.constraint_field)
        job = Job(
            prompts=prepared.prompts,
            params=prepared.params,
            priority=priority,
            timeout_s=body.timeout_s,
            queue_timeout_s=body.queue_timeout_s,
            prompt_only=prepared.prompt_only,
        )
        generation = await Generation.start(state, ticket, job)
    except BaseException:
        ticket.give_back()
        raise
    try:
        yield Started(
            generation=generation,
            model=model,
            request_id=ticket.request_id,
            headers=headers,
            form=prepared.form,
        )
    except BaseException:
        await generation.close()
        raise


async def read(request: Request, body: Body, work: Callable[[], T]) -> tuple[dict[str, str], T]:
    """Headers to answer with, and what the work makes of a body whose fields are right."""
    state = state_of(request)
    strict = state.args.strict_fields

    def judged() -> tuple[dict[str, str], T]:
        headers = ignored_headers(judge(body, strict, template_of(state, body)), strict)
        return headers, work()

    return await input_phase(len(await request.body()), judged)


def prepared_chat(state: ServerState, chat: ChatCompletionRequest) -> Prepared:
    """Of a conversation."""
    engine = state.require_engine()
    params = chat_params(chat, engine, state.args)
    rules = PromptRules.of(chat, "messages")
    prompt = chat_prompt(state, chat)
    form = AnswerForm.of(state.formats, chat, prompt)
    prompts = ready_prompts(engine, [prompt], rules)
    params = constrained(form.with_marks(params), form, chat)
    return Prepared(
        prompts=prompts, params=params, form=form, constraint_field=constraint_field(chat)
    )
