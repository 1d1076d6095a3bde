"""How streams of the Responses and the Messages API end that cannot go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from functools import partial
from typing import Any, cast

import pytest

from quire.outputs import CompletionOutput, RequestOutput
from quire.sampling_params import SamplingParams
from quire.server.answer_form import AnswerForm
from quire.server.errors import HTTPError, broken_off, internal
from quire.server.generation import Generation, Wanted
from quire.server.intake import Started
from quire.server.messages_stream import error_event, message_events
from quire.server.messages_view import MessageView
from quire.server.protocol.responses import ResponsesRequest
from quire.server.responses_stream import ResponseStream
from quire.server.responses_view import ResponseView
from quire.server.sse import EventStream
from quire.server.state import Phase, ServerState
from quire.server.usage import Usage
from tests.fakes.client_types import MESSAGE_EVENTS, RESPONSE_EVENTS, checked_events

ERROR = internal("the engine is on fire")


class FailingGeneration:
    """Says a word, then fails."""

    def __init__(self, num_words: int) -> None:
        self.num_words = num_words
        self.usage = Usage(prompt_tokens=3)
        self.wanted = Wanted(prompts=[], params=SamplingParams(seed=1))
        self.is_closed = False

    async def outputs(self) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        for _ in range(self.num_words):
            self.usage.completion_tokens += 1
            one = CompletionOutput(0, "word", [5], None, None)
            yield 0, RequestOutput("r", None, None, None, [one], finished=False)
        raise ERROR

    def cancel(self) -> None:
        raise AssertionError("nobody has left")

    async def close(self) -> None:
        self.is_closed = True


class EndingGeneration(FailingGeneration):
    """Says a word, then somebody breaks it off."""

    async def outputs(self) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        for text, reason in (("word", None), ("", "abort")):
            one = CompletionOutput(0, text, [5], None, None, finish_reason=reason)
            yield 0, RequestOutput("r", None, None, None, [one], finished=reason is not None)


def started(generation: FailingGeneration) -> Started:
    running = cast(Generation, generation)
    return Started(generation=running, model="m", request_id="r", headers={}, form=AnswerForm())


async def sent(events: EventStream, path: str) -> tuple[int, str]:
    """The status and the body that a client gets."""
    messages: list[Any] = []

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        messages.append(message)

    await events({"type": "http", "path": path, "headers": []}, receive, send)
    return messages[0]["status"], b"".join(one.get("body", b"") for one in messages).decode()


def response_stream(state: ServerState, generation: FailingGeneration) -> ResponseStream:
    body = ResponsesRequest(input="x")
    run = started(generation)
    return ResponseStream(run.generation, ResponseView(state, body, run))


@pytest.mark.parametrize("num_words", [0, 1])
async def test_a_response_fails(state: ServerState, num_words: int) -> None:
    generation = FailingGeneration(num_words)
    stream = response_stream(state, generation)
    run = cast(Generation, generation)
    events = EventStream(run, stream.run(), keep_alive_s=0, headers={}, error_event=stream.failed)
    status, text = await sent(events, "/v1/responses")
    assert generation.is_closed
    if num_words == 0:
        assert status == 500
        assert "on fire" in text
        return
    *_, delta, last = checked_events(text, RESPONSE_EVENTS)
    assert (status, delta.delta, last.type) == (200, "word", "response.failed")
    assert last.sequence_number == delta.sequence_number + 1
    response = last.response
    assert (response.status, response.error.code) == ("failed", "server_error")
    assert response.error.message == "the engine is on fire"
    (item,) = response.output
    assert (item.status, item.content[0].text) == ("incomplete", "word")


async def test_a_response_that_fails_after_keep_alives_is_whole(state: ServerState) -> None:
    stream = response_stream(state, FailingGeneration(0))
    text = stream.failed("/v1/responses", ERROR).decode()
    created, failed = checked_events(text, RESPONSE_EVENTS)
    assert (created.sequence_number, failed.sequence_number) == (0, 1)
    assert (failed.response.id, failed.response.output) == (created.response.id, [])


@pytest.mark.parametrize("num_words", [0, 1])
async def test_a_message_fails(state: ServerState, num_words: int) -> None:
    generation = FailingGeneration(num_words)
    run = started(generation)
    events = message_events(run.generation, MessageView(state, run))
    path = "/v1/messages"
    stream = EventStream(
        run.generation,
        events,
        keep_alive_s=0,
        headers={},
        error_event=partial(error_event, request_id="own"),
    )
    status, text = await sent(stream, path)
    assert status == (200 if num_words else 500)
    begin, _, end = text.rpartition("event: error\ndata: ")
    failure = json.loads(end)
    assert failure["type"] == "error" and failure["request_id"] == ("own" if num_words else None)
    assert failure["error"] == {"type": "api_error", "message": "the engine is on fire"}
    if num_words == 0:
        return
    assert checked_events(begin, MESSAGE_EVENTS)[-1].delta.text == "word"


@pytest.mark.parametrize("is_shutdown", [True, False])
async def test_a_message_that_is_broken_off_says_whether_to_send_it_again(
    state: ServerState, is_shutdown: bool
) -> None:
    run = started(EndingGeneration(1))
    events = message_events(run.generation, MessageView(state, run))
    stream = EventStream(
        run.generation, events, keep_alive_s=0, headers={}, error_event=error_event
    )
    if is_shutdown:
        state.enter(Phase.DRAINING, "the server is shutting down")
    _, text = await sent(stream, "/v1/messages")
    error = json.loads(text.partition("event: error\ndata: ")[2])["error"]
    if is_shutdown:
        assert error["type"] == "overloaded_error"
        assert error["message"] == broken_off().message
    else:
        assert (error["type"], "cancelled" in error["message"]) == ("invalid_request_error", True)


@pytest.mark.parametrize("is_shutdown", [True, False])
async def test_a_response_that_is_broken_off_says_whether_to_send_it_again(
    state: ServerState, is_shutdown: bool
) -> None:
    generation = EndingGeneration(1)
    stream = response_stream(state, generation)
    run = cast(Generation, generation)
    events = EventStream(run, stream.run(), keep_alive_s=0, headers={}, error_event=stream.failed)
    if is_shutdown:
        state.enter(Phase.DRAINING, "the server is shutting down")
    _, text = await sent(events, "/v1/responses")
    *_, before, last = checked_events(text, RESPONSE_EVENTS)
    assert last.sequence_number == before.sequence_number + 1
    assert last.response.output[0].content[0].text == "word"
    if is_shutdown:
        assert (last.type, last.response.status) == ("response.failed", "failed")
        assert last.response.error.message == broken_off().message
    else:
        assert (last.type, last.response.status) == ("response.incomplete", "cancelled")


def test_the_error_events_name_the_kind_that_clients_know() -> None:
    event = error_event("/v1/messages", HTTPError(503, "later", "ServiceUnavailableError"))
    assert b'"type":"overloaded_error"' in event
