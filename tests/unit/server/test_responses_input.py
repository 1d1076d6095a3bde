"""Items of the Responses API become messages."""

from __future__ import annotations

from typing import Any

import pytest

from quire.server.errors import HTTPError
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.responses import ResponsesRequest
from quire.server.responses_input import chat_fields
from quire.server.responses_thoughts import encoded_thought


def chat_of(body: ResponsesRequest) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(chat_fields(body))


def messages_of(**body: Any) -> list[dict[str, Any]]:
    chat = chat_of(ResponsesRequest.model_validate(body))
    return [one.model_dump(exclude_none=True) for one in chat.messages]


def call(call_id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": "f", "arguments": '{"a": 1}'}


def in_chat(call_id: str) -> dict[str, Any]:
    function = {"name": "f", "arguments": '{"a": 1}'}
    return {"id": call_id, "type": "function", "function": function}


def test_a_string_is_the_users_and_instructions_come_first() -> None:
    assert messages_of(input="x", instructions="y") == [
        {"role": "system", "content": "y"},
        {"role": "user", "content": "x"},
    ]


def test_one_part_is_a_string_and_more_stay_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    first, second = messages_of(
        input=[{"role": "user", "content": parts[:1]}, {"role": "developer", "content": parts}]
    )
    assert first == {"role": "user", "content": "a"}
    texts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert second == {"role": "developer", "content": texts}


def test_a_thought_of_a_turn_without_an_answer_goes_to_no_later_turn() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "cut"}]}
    first, second = {"role": "user", "content": "a"}, {"role": "user", "content": "b"}
    said = {"role": "assistant", "content": "c"}
    assert messages_of(input=[first, thought, second, said]) == [first, second, said]


def test_calls_belong_to_the_assistants_turn() -> None:
    said = {"type": "message", "role": "assistant", "content": "Let me see."}
    output = {"type": "function_call_output", "call_id": "1", "output": "7"}
    parts = [{"type": "input_text", "text": "8"}]
    more = {"type": "function_call_output", "call_id": "2", "output": parts}
    user = {"role": "user", "content": "x"}
    items = [user, said, call("1"), call("2"), output, more, call("3")]
    assert messages_of(input=items) == [
        user,
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [in_chat("1"), in_chat("2")],
        },
        {"role": "tool", "tool_call_id": "1", "content": "7"},
        {"role": "tool", "tool_call_id": "2", "content": "8"},
        {"role": "assistant", "tool_calls": [in_chat("3")]},
    ]


def test_reasoning_goes_to_the_turn_that_follows() -> None:
    content = [{"type": "reasoning_text", "text": "hm"}]
    summary = [{"type": "summary_text", "text": "not this"}]
    items = [
        {"type": "reasoning", "id": "r", "summary": summary, "encrypted_content": None},
        {"type": "reasoning", "id": "r", "summary": summary, "content": content},
        call("1"),
        {"role": "assistant", "content": "x"},
    ]
    assert messages_of(input=items) == [
        {"role": "assistant", "content": "x", "reasoning": "hm", "tool_calls": [in_chat("1")]},
    ]


def test_texts_and_calls_of_a_turn_are_one_message() -> None:
    output = {"type": "function_call_output", "call_id": "1", "output": "7"}
    result = {"role": "tool", "tool_call_id": "1", "content": "7"}
    calls = [in_chat("1"), in_chat("2")]
    said = {"role": "assistant", "content": " and"}
    turn = {"role": "assistant", "content": " and", "tool_calls": calls}
    assert messages_of(input=[call("1"), said, call("2"), output]) == [turn, result]
    assert messages_of(input=[call("1"), call("2"), said, output]) == [turn, result]
    before = {"role": "assistant", "content": "First"}
    whole = {**turn, "content": "First and"}
    assert messages_of(input=[before, call("1"), said, call("2")]) == [whole]
    parts = {**said, "content": [{"type": "output_text", "text": one} for one in "ab"]}
    texts = [{"type": "text", "text": one} for one in ("First", "a", "b")]
    whole = {**turn, "content": texts, "tool_calls": calls[:1]}
    assert messages_of(input=[before, call("1"), parts]) == [whole]


def test_a_turn_begins_with_a_thought_and_behind_a_result() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    output = {"type": "function_call_output", "call_id": "1", "output": "7"}
    said = {"role": "assistant", "content": "x"}
    first = {"role": "assistant", "tool_calls": [in_chat("1")]}
    assert messages_of(input=[call("1"), thought, said]) == [first, {**said, "reasoning": "hm"}]
    assert messages_of(input=[call("1"), output, said])[2] == said
    assert messages_of(input=[said, said]) == [said, said]


def test_an_item_of_no_type_is_a_message() -> None:
    user = {"role": "user", "content": "x"}
    assert messages_of(input=[{"type": None, **user}]) == [user]


def test_an_encoded_thought_is_read_where_there_is_no_text() -> None:
    encoded = {"type": "reasoning", "summary": [], "encrypted_content": encoded_thought("hé\nm")}
    said = {"role": "assistant", "content": "x"}
    assert messages_of(input=[encoded, said]) == [{**said, "reasoning": "hé\nm"}]
    content = [{"type": "reasoning_text", "text": "plain"}]
    assert messages_of(input=[{**encoded, "content": content}, said])[0]["reasoning"] == "plain"


@pytest.mark.parametrize(
    ("encoded", "why"),
    [
        ("abc", "it was encoded by another server"),
        (encoded_thought("abcd")[:-1], "it is damaged"),
        (encoded_thought("") + "/w==", "it is damaged"),
        ("quire1.é", "it is damaged"),
    ],
)
def test_an_encoded_thought_that_cannot_be_read_is_refused(encoded: str, why: str) -> None:
    item = {"type": "reasoning", "summary": [], "encrypted_content": encoded}
    with pytest.raises(HTTPError, match=f"cannot be decoded: {why}") as caught:
        messages_of(input=[item])
    assert (caught.value.status, caught.value.param) == (400, "input[0].encrypted_content")


def test_a_schema_is_named_as_in_chat() -> None:
    text = {"format": {"type": "json_schema", "name": "n", "schema": {"a": 1}, "strict": True}}
    chat = chat_of(ResponsesRequest.model_validate({"input": "x", "text": text}))
    assert chat.response_format == {
        "type": "json_schema",
        "json_schema": {"name": "n", "schema": {"a": 1}, "strict": True},
    }


def test_fields_of_sampling_are_those_of_chat() -> None:
    wish = {"temperature": 0.5, "seed": 3, "top_k": 4, "cache_salt": "s", "timeout_s": 2.5}
    body = {**wish, "input": "x", "max_output_tokens": 7, "top_logprobs": 2, "stop": ["a"]}
    chat = chat_of(ResponsesRequest.model_validate(body))
    assert {name: getattr(chat, name) for name in wish} == wish
    assert (chat.max_tokens, chat.logprobs, chat.top_logprobs) == (7, True, 2)
    assert chat.stop == ["a"]
