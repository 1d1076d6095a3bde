"""LangChain's OpenAI chat model against `quire serve` with the bundled model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.fakes.server import MODEL

QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."


@pytest.fixture(params=["chat", "responses"])
def model(server_url: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    with httpx.Client() as http:
        yield ChatOpenAI(
            model=MODEL,
            base_url=f"{server_url}/v1",
            api_key=SecretStr("none"),
            temperature=0,
            max_retries=0,
            stream_usage=True,  # LangChain asks other servers than OpenAI's only when told
            use_responses_api=request.param == "responses",
            http_client=http,
        )


def test_invoke(model: ChatOpenAI) -> None:
    answer = model.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)])
    assert answer.text == ANSWER
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] == 10
    assert answer.response_metadata["model_name"] == MODEL


def test_a_history(model: ChatOpenAI) -> None:
    history = [HumanMessage("What is 3 plus 4?"), AIMessage("3 plus 4 is 7.")]
    assert model.invoke([*history, HumanMessage(QUESTION)]).text == ANSWER


def test_stream(model: ChatOpenAI) -> None:
    chunks = list(model.stream(QUESTION))
    assert "".join(chunk.text for chunk in chunks) == ANSWER
    assert len(chunks) > 5
    usages = [chunk.usage_metadata for chunk in chunks if chunk.usage_metadata]
    assert [usage["output_tokens"] for usage in usages] == [10]


def test_batch(model: ChatOpenAI) -> None:
    questions = [f"What is {number} plus 4?" for number in range(8)]
    answers = model.batch(list(questions))
    assert [one.text for one in answers] == [model.invoke(one).text for one in questions]


def test_a_prompt_that_is_too_long_is_known_as_that(model: ChatOpenAI) -> None:
    with pytest.raises(ContextOverflowError):
        model.invoke("x " * 5000)
    with pytest.raises(ContextOverflowError):
        list(model.stream("x " * 5000))
