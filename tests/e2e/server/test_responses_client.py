"""The Responses API through the official ``openai`` client against `quire serve`."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.responses import EasyInputMessageParam

from tests.fakes.server import ANSWER, MODEL, QUESTION


def test_a_string_is_answered(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=MODEL,
        input=QUESTION,
        instructions="Be brief.",
        temperature=0,
        include=["message.output_text.logprobs"],
        top_logprobs=1,
        store=True,
        metadata={"a": "b"},
    )
    assert (response.output_text, response.status) == (ANSWER, "completed")
    assert response.metadata == {"a": "b"}
    assert response.usage is not None
    assert response.usage.output_tokens == 10


def test_items_are_answered_and_can_be_sent_back(client: openai.OpenAI) -> None:
    first: EasyInputMessageParam = {"role": "user", "content": "What is 3 plus 4?"}
    response = client.responses.create(model=MODEL, input=[first], temperature=0)
    history: list[Any] = [first, *response.output, {"role": "user", "content": QUESTION}]
    answer = client.responses.create(model=MODEL, input=history, temperature=0)
    assert answer.output_text == ANSWER


def test_a_stream_adds_up_to_the_response(client: openai.OpenAI) -> None:
    wish: dict[str, Any] = {"model": MODEL, "input": QUESTION, "temperature": 1.2}
    seed = {"seed": 5}
    whole = client.responses.create(**wish, extra_body=seed)
    text, numbers = "", []
    with client.responses.create(**wish, stream=True, extra_body=seed) as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type == "response.completed":
                last = event.response
    assert text == last.output_text == whole.output_text
    assert numbers == list(range(len(numbers)))
    assert (last.status, last.usage and last.usage.output_tokens) == (
        whole.status,
        whole.usage and whole.usage.output_tokens,
    )


def test_the_clients_own_accumulator(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input=QUESTION, temperature=0) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        response = stream.get_final_response()
    assert "".join(texts) == response.output_text == ANSWER


def test_input_tokens_are_counted(client: openai.OpenAI) -> None:
    counted = client.responses.input_tokens.count(model=MODEL, input=QUESTION)
    usage = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=1).usage
    assert usage is not None
    assert counted.input_tokens == usage.input_tokens


def test_there_is_no_state(client: openai.OpenAI) -> None:
    first = client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=1)
    with pytest.raises(openai.NotFoundError, match="keeps no state"):
        client.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="keeps no state"):
        client.responses.create(model=MODEL, input="x", previous_response_id=first.id)
