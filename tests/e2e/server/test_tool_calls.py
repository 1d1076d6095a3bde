"""Official clients let the bundled model call a weather tool and give it the result."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.fakes.server import MODEL
from tests.fakes.weather import (
    ANSWER_PARTS,
    ARGUMENTS,
    DESCRIPTION,
    PARAMETERS,
    QUESTION,
    RESULT,
    TOOL,
)

COMMON: Any = {"model": MODEL, "temperature": 0, "tools": [TOOL]}
ASKED: Any = {"role": "user", "content": QUESTION}


def streamed_message(client: openai.OpenAI, messages: list[Any]) -> dict[str, Any]:
    """The message of a stream, put together as its client does it."""
    with client.chat.completions.stream(messages=messages, **COMMON) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    return {**choice.message.model_dump(), "finish_reason": choice.finish_reason}


def whole_message(client: openai.OpenAI, messages: list[Any]) -> dict[str, Any]:
    choice = client.chat.completions.create(messages=messages, **COMMON).choices[0]
    return {**choice.message.model_dump(), "finish_reason": choice.finish_reason}


@pytest.mark.parametrize("ask", [whole_message, streamed_message])
def test_openais_client_calls_a_tool_and_gets_the_answer(client: openai.OpenAI, ask: Any) -> None:
    message = ask(client, [ASKED])
    assert message.pop("finish_reason") == "tool_calls"
    (call,) = message["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == ARGUMENTS
    assert not message["content"]

    sent = [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [without_own_keys(call)]},
        {"role": "tool", "tool_call_id": call["id"], "content": RESULT},
    ]
    answer = ask(client, sent)
    assert answer["finish_reason"] == "stop" and not answer["tool_calls"]
    assert all(part in answer["content"] for part in ANSWER_PARTS)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ("required", "tool_calls"),
        ({"type": "function", "function": {"name": "get_weather"}}, "stop"),
    ],
)
def test_openais_client_can_force_a_call(client: openai.OpenAI, choice: Any, reason: str) -> None:
    common = {**COMMON, "messages": [ASKED], "tool_choice": choice}
    whole = client.chat.completions.create(**common).choices[0]
    with client.chat.completions.stream(**common) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion().choices[0]
    for one in (whole, streamed):
        (call,) = one.message.tool_calls or ()
        assert (call.function.name, json.loads(call.function.arguments)) == (
            "get_weather",
            ARGUMENTS,
        )
        assert one.finish_reason == reason


def without_own_keys(call: dict[str, Any]) -> dict[str, Any]:
    """The client's helper for streams adds some."""
    function = {key: call["function"][key] for key in ("name", "arguments")}
    return {"id": call["id"], "type": "function", "function": function}


@pytest.mark.parametrize("is_streamed", [False, True])
def test_anthropics_client_calls_a_tool_and_gets_the_answer(
    server_url: str, is_streamed: bool
) -> None:
    tool: Any = {"name": "get_weather", "description": DESCRIPTION, "input_schema": PARAMETERS}
    common: Any = {"model": MODEL, "max_tokens": 100, "tools": [tool]}
    common["extra_body"] = {"temperature": 0}
    with anthropic.Anthropic(api_key="none", base_url=server_url, max_retries=0) as client:

        def ask(messages: list[Any]) -> anthropic.types.Message:
            if not is_streamed:
                return client.messages.create(messages=messages, **common)
            with client.messages.stream(messages=messages, **common) as stream:
                return stream.get_final_message()

        message = ask([ASKED])
        (block,) = message.content
        assert block.type == "tool_use" and message.stop_reason == "tool_use"
        assert (block.name, block.input) == ("get_weather", ARGUMENTS)

        result = {"type": "tool_result", "tool_use_id": block.id, "content": RESULT}
        call = {"type": "tool_use", "id": block.id, "name": block.name, "input": block.input}
        answer = ask(
            [
                ASKED,
                {"role": "assistant", "content": [call]},
                {"role": "user", "content": [result]},
            ]
        )
        (text,) = answer.content
        assert text.type == "text" and all(part in text.text for part in ANSWER_PARTS)
        assert answer.stop_reason == "end_turn"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_anthropics_runner_calls_a_tool_and_sends_the_whole_conversation(
    server_url: str, is_streamed: bool
) -> None:
    """Newer ones ask for a thread first, in which the server would keep it."""
    cities = []

    @anthropic.beta_tool
    def get_weather(city: str) -> str:
        """Get the current weather in a city.

        Args:
            city: The city
        """
        cities.append(city)
        return RESULT

    common: Any = {"model": MODEL, "max_tokens": 100, "extra_body": {"temperature": 0}}
    with anthropic.Anthropic(api_key="none", base_url=server_url, max_retries=0) as client:
        runner: Any = client.beta.messages.tool_runner(
            messages=[ASKED], tools=[get_weather], stream=is_streamed, **common
        )
        answer = runner.until_done()
    assert cities == ["Oslo"]
    (text,) = answer.content
    assert all(part in text.text for part in ANSWER_PARTS)
    assert answer.stop_reason == "end_turn"
