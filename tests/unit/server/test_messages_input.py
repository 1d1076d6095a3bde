"""Blocks of the Messages API become messages of chat."""

from __future__ import annotations

from typing import Any

from quire.server.messages_input import chat_fields
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.messages import MessagesRequest


def chat_of(body: MessagesRequest) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate(chat_fields(body))


def messages_of(*messages: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    whole = {"max_tokens": 1, "messages": list(messages), **body}
    chat = chat_of(MessagesRequest.model_validate(whole))
    return [one.model_dump(exclude_none=True) for one in chat.messages]


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value, "cache_control": {"type": "ephemeral"}}


def test_the_system_comes_first_as_string_or_blocks() -> None:
    ask = {"role": "user", "content": "x"}
    for system in ("y", [text("y")]):
        assert messages_of(ask, system=system) == [{"role": "system", "content": "y"}, ask]
    later = {"role": "system", "content": [text("z")]}
    assert messages_of(ask, later, ask)[1] == {"role": "system", "content": "z"}


def test_several_blocks_stay_parts() -> None:
    (message,) = messages_of(user(text("a"), text("b")))
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert message == {"role": "user", "content": parts}


def test_tools_in_the_history() -> None:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {"a": 1}}
    thought = {"type": "thinking", "thinking": "hm", "signature": "s"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [text("7")]}
    failed = {"type": "tool_result", "tool_use_id": "2", "is_error": True}
    assistant = {"role": "assistant", "content": [thought, hidden, text("Let me see."), use]}
    function = {"name": "f", "arguments": {"a": 1}}
    assert messages_of(user(text("x")), assistant, user(result, failed, text("y"))) == [
        {"role": "user", "content": "x"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning": "hm",
            "tool_calls": [{"id": "1", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "7"},
        {"role": "tool", "tool_call_id": "2", "content": "", "is_error": True},
        {"role": "user", "content": "y"},
    ]


def test_arguments_that_are_a_list_are_an_object_that_holds_their_text() -> None:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": ["Æ"]}
    (message,) = messages_of({"role": "assistant", "content": [use]}, user(text("x")))[:1]
    assert message["tool_calls"][0]["function"]["arguments"] == {"INVALID_JSON": '["Æ"]'}


def test_neighbours_of_one_role_are_one_turn() -> None:
    use = {"type": "tool_use", "id": "1", "name": "f", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "7"}
    plain = {"role": "user", "content": "x"}
    said = {"role": "assistant", "content": "Let me see."}
    called = {"role": "assistant", "content": [use]}
    parts = [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]
    assert messages_of(
        plain,
        user(text("y")),
        said,
        called,
        user(text("x")),
        user(result, text("x")),
        user(text("y")),
    ) == [
        {"role": "user", "content": parts},
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}
            ],
        },
        plain,
        {"role": "tool", "tool_call_id": "1", "content": "7"},
        {"role": "user", "content": parts},
    ]
    notes = [{"role": "system", "content": one} for one in ("x", [text("y")])]
    assert messages_of(plain, *notes, plain, system="z") == [
        {"role": "system", "content": "z"},
        plain,
        {"role": "system", "content": parts},
        plain,
    ]


def test_only_a_last_message_of_the_assistant_is_continued() -> None:
    ask, begun = user(text("x")), {"role": "assistant", "content": "y"}
    for messages, continues in (([ask], False), ([ask, begun], True), ([begun, ask], False)):
        body = MessagesRequest.model_validate({"max_tokens": 1, "messages": messages})
        assert chat_of(body).continue_final_message is continues


def test_fields_of_sampling_are_those_of_chat() -> None:
    wish = {"temperature": 0.5, "top_k": 3, "top_p": 0.5, "seed": 1, "max_tokens": 7}
    messages = [{"role": "user", "content": "x"}]
    body = {**wish, "messages": messages, "stop_sequences": ["a"]}
    chat = chat_of(MessagesRequest.model_validate(body))
    assert {name: getattr(chat, name) for name in wish} == wish
    assert chat.stop == ["a"]
