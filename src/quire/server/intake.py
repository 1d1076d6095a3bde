"""From a request body to a running generation: the steps that all generating endpoints share.

Checks the model, takes a ticket, checks the fields, has the prompt made, and submits it to the
engine. Knows no particular body: the function that makes its prompt is passed in.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from quire.prompts import ParsedPrompt
from quire.sampling_params import SamplingParams
from quire.server.answer_form import AnswerForm
from quire.server.answer_formats import AUTO
from quire.server.chat_prompt import chat_prompt, forbids_thoughts, template_of
from quire.server.envelope import Envelope, priority_of
from quire.server.error_responses import json_response
from quire.server.errors import bad_request, renamed
from quire.server.fields import ignored_headers, judge
from quire.server.generation import Generation, Wanted
from quire.server.input_phase import LARGE_BYTES, InputPhase, go_on
from quire.server.output_constraint import constrained, constraint_field, verify
from quire.server.prompt_tokens import PromptRules, check_countable, ready_prompts, too_long
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.common import Body, ChatPromptBody, GenerationBody, SamplingBody
from quire.server.request_ids import request_id_of
from quire.server.sampling_fields import chat_params
from quire.server.sse import Events, EventStream, FailedEvent, openai_error
from quire.server.state import ServerState, state_of
from quire.server.tickets import Ticket
from quire.server.time_limit import arrived, within_time

T = TypeVar("T")

# Sampling parameter -> its name in chat requests.
_CHAT_NAMES = {"logprobs": "top_logprobs"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What a body asks of the engine."""

    prompts: list[ParsedPrompt]  # with token ids
    params: SamplingParams
    prompt_only: bool = False  # the one token that the engine makes is not shown
    form: AnswerForm = field(default_factory=AnswerForm)
    constraint_field: str | None = None  # name of the field that constrains the answer
    names: Mapping[str, str] = field(default_factory=dict)  # our field -> its name in the body

    @property
    def schema_places(self) -> list[str]:
        """The body's fields that hold the tools' schemas, in the order in which the grammar of the
        form has them."""
        return [self.names.get(place, place) for place in self.form.schema_places]


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """A running request."""

    generation: Generation
    model: str  # as answers report it
    request_id: str
    headers: dict[str, str]  # of the response
    form: AnswerForm

    def envelope(self, prefix: str, state: ServerState) -> Envelope:
        return Envelope.of(prefix, self.request_id, self.model, state.require_engine())

    def stream(
        self, state: ServerState, events: Events, error_event: FailedEvent = openai_error
    ) -> EventStream:
        """The response that streams the answer."""
        return EventStream(
            self.generation,
            events,
            keep_alive_s=state.args.sse_keep_alive_interval,
            headers=self.headers,
            error_event=error_event,
        )

    def whole(self, content: object) -> Response:
        """The response with the whole answer."""
        return json_response(content, headers=self.headers)


@contextlib.asynccontextmanager
async def start(
    request: Request, endpoint: str, body: SamplingBody, prepare: Callable[[], Prepared]
) -> AsyncIterator[Started]:
    """Start the generation that ``prepare``, which may run in a thread, makes of the body.

    An error inside the ``async with`` ends the generation; otherwise it runs on, for a stream.
    """
    state = state_of(request)
    models = state.require_models()
    models.check(body.model)
    priority = priority_of(request, body.priority)
    ticket = Ticket.take(state, endpoint, models.reported, request_id_of(request, body.request_id))
    try:
        headers, prepared = await within_time(request, _verified(request, body, prepare))
        wanted = Wanted(
            prompts=prepared.prompts,
            params=prepared.params,
            priority=priority,
            timeout_s=body.timeout_s,
            queue_timeout_s=body.queue_timeout_s,
            prompt_only=prepared.prompt_only,
            arrived=arrived(request),
        )
        with renamed(prepared.names):
            generation = await Generation.start(state, ticket, wanted)
    except BaseException:
        ticket.give_back()
        raise
    try:
        yield Started(
            generation=generation,
            model=models.reported,
            request_id=ticket.request_id,
            headers=headers,
            form=prepared.form,
        )
    except BaseException:
        await generation.close()
        raise


async def read(request: Request, body: Body, work: Callable[[], T]) -> tuple[dict[str, str], T]:
    """Check the fields of a body that generates nothing, then do the work; returns the headers of
    the response and the result."""
    return await within_time(request, _read(request, body, work, state_of(request).counts))


async def _verified(
    request: Request, body: Body, prepare: Callable[[], Prepared]
) -> tuple[dict[str, str], Prepared]:
    """Check the fields of a body that generates, prepare it, and check its grammar; returns the
    headers of the response and what was prepared."""
    state = state_of(request)
    headers, prepared = await _read(request, body, prepare, state.inputs)
    engine, field = state.require_engine(), prepared.constraint_field
    with renamed(prepared.names):
        await verify(engine, prepared.params, field, prepared.schema_places)
    return headers, prepared


async def _read(
    request: Request, body: Body, work: Callable[[], T], inputs: InputPhase
) -> tuple[dict[str, str], T]:
    state = state_of(request)
    strict = state.args.strict_fields

    def judged() -> tuple[dict[str, str], T]:
        headers = ignored_headers(judge(body, strict, template_of(state, body)), strict)
        go_on()
        return headers, work()

    num_bytes = len(await request.body())
    if isinstance(body, ChatPromptBody) and body.chat_template is not None:
        num_bytes = LARGE_BYTES  # such a template may do any amount of work
    return await inputs.do(request, num_bytes, judged)


def _check_number(messages: Sequence[object], max_model_len: int) -> None:
    """400 for more messages than the context has tokens, before they are rendered: each has at
    least one."""
    if len(messages) > max_model_len:
        raise too_long(len(messages), max_model_len, "messages", may_have_more=True)


def countable_chat(state: ServerState, chat: ChatPromptBody) -> ParsedPrompt:
    """The rendered prompt of a conversation that is only counted or shown."""
    engine = state.require_engine()
    check_countable(engine, len(chat.messages), "messages", "messages", least=0)
    return chat_prompt(state, chat)


def check_thinking_budget(state: ServerState, body: GenerationBody) -> None:
    """400 for a budget without a reasoning parser, which knows where reasoning ends."""
    budget = body.thinking_token_budget
    if budget not in (None, -1) and state.formats.thoughts is None:
        remedy = "start the server with --reasoning-parser"
        if state.args.reasoning_parser == AUTO:
            found_none = "--reasoning-parser auto has found none for this model"
            remedy = f"{found_none}; start the server with the name of one"
        raise bad_request(
            f"thinking_token_budget={budget} needs a reasoning parser, which knows where thinking "
            f"ends: {remedy}, or leave thinking_token_budget out.",
            "thinking_token_budget",
        )


def prepared_chat(state: ServerState, chat: ChatCompletionRequest) -> Prepared:
    """The rendered prompt, the parameters and the form of the answer of a conversation."""
    engine = state.require_engine()
    _check_number(chat.messages, engine.model_config.max_model_len)
    with renamed(_CHAT_NAMES):
        params = chat_params(chat, engine, state.args)
    check_thinking_budget(state, chat)
    rules = PromptRules.of(chat, params, "messages")
    prompt = chat_prompt(state, chat)
    form = AnswerForm.of(state.formats, chat, prompt)
    if (thoughts := state.formats.thoughts) is not None:
        thinking = thoughts.after(form.opening, is_forbidden=forbids_thoughts(state, chat))
        prompt = replace(prompt, thinking=thinking)
    prompts = ready_prompts(engine, [prompt], rules)
    params = constrained(form.with_marks(params), form, chat)
    return Prepared(
        prompts=prompts,
        params=params,
        form=form,
        constraint_field=constraint_field(chat) if form.must is None else None,
        names=_CHAT_NAMES,
    )
