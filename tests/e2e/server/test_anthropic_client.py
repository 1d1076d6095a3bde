"""The official ``anthropic`` client against `quire serve` with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, MessageParam

from tests.fakes.server import ANSWER, KEY, MODEL, QUESTION

ASKED: list[MessageParam] = [{"role": "user", "content": QUESTION}]
GREEDY: dict[str, Any] = {"temperature": 0}


@pytest.fixture
def client(locked_server_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=locked_server_url, api_key=KEY, max_retries=0) as client:
        yield client


def text_of(message: Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=MODEL, max_tokens=64, messages=ASKED, system="Be brief.", extra_body=GREEDY
    )
    assert text_of(message) == ANSWER
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 10
    assert message._request_id


def test_models_are_listed(client: anthropic.Anthropic) -> None:
    (model,) = client.models.list()
    assert (model.id, model.type, model.display_name) == (MODEL, "model", MODEL)
    assert model.created_at.year > 2000
    assert client.models.retrieve(MODEL) == model
    assert (model.lifecycle, model.max_input_tokens) == ("active", model.max_tokens)


def test_a_stream_is_the_whole_message(client: anthropic.Anthropic) -> None:
    seeded = {"temperature": 1, "seed": 5}
    whole = client.messages.create(model=MODEL, max_tokens=32, messages=ASKED, extra_body=seeded)
    with client.messages.stream(
        model=MODEL, max_tokens=32, messages=ASKED, extra_body=seeded
    ) as stream:
        pieces = list(stream.text_stream)
        last = stream.get_final_message()
    assert "".join(pieces) == text_of(last) == text_of(whole)
    assert len(pieces) > 3
    assert last.stop_reason == whole.stop_reason
    assert last.usage.output_tokens == whole.usage.output_tokens


def test_tokens_are_counted_without_an_answer(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model=MODEL, messages=ASKED)
    usage = client.messages.create(model=MODEL, max_tokens=1, messages=ASKED).usage
    total = usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert counted.input_tokens == total


def test_an_answer_that_was_begun_is_continued(client: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [*ASKED, {"role": "assistant", "content": "The capital"}]
    message = client.messages.create(
        model=MODEL, max_tokens=64, messages=messages, stop_sequences=["."], extra_body=GREEDY
    )
    assert text_of(message) == ANSWER.removeprefix("The capital").removesuffix(".")
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", ".")


def test_a_conversation_goes_on(client: anthropic.Anthropic) -> None:
    first: list[MessageParam] = [{"role": "user", "content": "What is 3 plus 4?"}]
    answer = client.messages.create(model=MODEL, max_tokens=32, messages=first)
    history: list[MessageParam] = [*first, {"role": "assistant", "content": answer.content}]
    message = client.messages.create(
        model=MODEL, max_tokens=64, messages=[*history, *ASKED], extra_body=GREEDY
    )
    assert text_of(message) == ANSWER


def test_a_wrong_key(locked_server_url: str) -> None:
    with anthropic.Anthropic(base_url=locked_server_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError, match="API key is missing or wrong"):
            client.messages.create(model=MODEL, max_tokens=1, messages=ASKED)
        with pytest.raises(anthropic.AuthenticationError):
            client.messages.count_tokens(model=MODEL, messages=ASKED)


def test_a_bearer_token_is_a_key_too(locked_server_url: str) -> None:
    with anthropic.Anthropic(base_url=locked_server_url, auth_token=KEY, max_retries=0) as client:
        assert client.messages.create(model=MODEL, max_tokens=1, messages=ASKED).content


def test_a_wrong_model(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="The model `claude` does not exist"):
        client.messages.create(model="claude", max_tokens=1, messages=ASKED)


def test_what_is_wrong_is_told(client: anthropic.Anthropic) -> None:
    image: Any = [{"type": "image", "source": {"type": "url", "url": "http://x"}}]
    messages: list[MessageParam] = [{"role": "user", "content": image}]
    with pytest.raises(anthropic.BadRequestError, match="type 'image' is not supported") as caught:
        client.messages.create(model=MODEL, max_tokens=1, messages=messages)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id
