"""``/v1/messages`` on the bundled model."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from anthropic.types import ErrorResponse, Message

from quire.chat_template import ChatRenderer
from quire.engine.async_engine import AsyncLLM
from quire.server.state import Phase, ServerState
from tests.fakes.client_types import MESSAGE_EVENTS, checked_events
from tests.fakes.server import MODEL, in_process_client, ready_state

PATH = "/v1/messages"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
TOOL = {"name": "clock", "description": "tells the time", "input_schema": {"type": "object"}}


async def ask(client: httpx.AsyncClient, **body: Any) -> Message:
    whole = {"model": MODEL, "max_tokens": 64, "messages": QUESTION, "temperature": 0, **body}
    response = await client.post(PATH, json=whole)
    assert response.status_code == 200, response.text
    return Message.model_validate(response.json(), strict=True)


async def stream(client: httpx.AsyncClient, **body: Any) -> list[Any]:
    whole = {"max_tokens": 64, "messages": QUESTION, "temperature": 0, "stream": True, **body}
    response = await client.post(PATH, json=whole)
    assert response.status_code == 200, response.text
    return checked_events(response.text, MESSAGE_EVENTS)


def text_of(message: Message) -> str:
    (block,) = message.content
    assert block.type == "text"
    return block.text


async def test_the_whole_message(client: httpx.AsyncClient) -> None:
    message = await ask(client, system="Be brief.", metadata={"user_id": "me"})
    assert message.id.startswith("msg_")
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert text_of(message) == ANSWER
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.output_tokens == 10


async def test_blocks_of_text_have_no_citations_not_even_null(client: httpx.AsyncClient) -> None:
    """As in Anthropic's answers: other clients than its own take null for a fault."""
    body = {"max_tokens": 1, "messages": QUESTION}
    (block,) = (await client.post(PATH, json=body)).json()["content"]
    assert set(block) == {"type", "text"}
    streamed = (await client.post(PATH, json={**body, "stream": True})).text
    assert '"content_block":{"type":"text","text":""}' in streamed


async def test_the_request_id_is_where_the_client_looks(client: httpx.AsyncClient) -> None:
    headers = {"X-Request-Id": "abc", "anthropic-version": "2023-06-01", "anthropic-beta": "x"}
    for is_stream in (False, True):
        body = {"max_tokens": 1, "messages": QUESTION, "stream": is_stream}
        response = await client.post(PATH, json=body, headers=headers)
        assert (response.status_code, response.headers["request-id"]) == (200, "abc")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (PATH, {}, 400),
        (PATH, {"messages": QUESTION, "max_tokens": 1, "model": "claude"}, 404),
        (PATH, {"messages": QUESTION, "max_tokens": 1, "stream": True, "thread": {}}, 400),
        (PATH + "/count_tokens", {"messages": []}, 400),
    ],
)
async def test_errors_have_the_request_id_too(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int
) -> None:
    response = await client.post(path, json=body, headers={"X-Request-Id": "abc"})
    assert (response.status_code, response.headers["request-id"]) == (status, "abc")
    error = ErrorResponse.model_validate(response.json(), strict=True)
    assert error.request_id == "abc"


async def test_a_model_that_is_not_there_is_told_in_the_form_of_the_client(
    client: httpx.AsyncClient,
) -> None:
    path, version = "/v1/models/claude", {"anthropic-version": "2023-06-01"}
    response = await client.get(path, headers={"X-Request-Id": "abc", **version})
    error = ErrorResponse.model_validate(response.json(), strict=True)
    assert (response.status_code, error.error.type) == (404, "not_found_error")
    assert error.request_id == "abc"
    assert (await client.get(path)).json()["error"]["type"] == "NotFoundError"


async def test_a_prompt_that_is_too_long_is_told_in_the_words_clients_look_for(
    client: httpx.AsyncClient,
) -> None:
    long = [{"role": "user", "content": "x " * 2047}]
    counted = await client.post(f"{PATH}/count_tokens", json={"messages": long})
    number = counted.json()["input_tokens"]
    response = await client.post(PATH, json={"max_tokens": 3, "messages": long})
    message = response.json()["error"]["message"]
    assert message.startswith(f"prompt is too long: {number} tokens > 2047 maximum. This model's ")
    many = await client.post(PATH, json={"max_tokens": 3, "messages": QUESTION * 3000})
    assert many.json()["error"]["message"].startswith("prompt is too long: ")


async def test_the_sequence_of_events(client: httpx.AsyncClient) -> None:
    start, block, *deltas, block_end, end, last = await stream(client)
    assert (start.type, start.message.content) == ("message_start", [])
    assert start.message.stop_reason is None
    assert (block.type, block.index, block.content_block.text) == ("content_block_start", 0, "")
    assert {delta.type for delta in deltas} == {"content_block_delta"}
    assert "".join(delta.delta.text for delta in deltas) == ANSWER
    assert (block_end.type, end.type) == ("content_block_stop", "message_delta")
    assert (end.delta.stop_reason, end.usage.output_tokens) == ("end_turn", 10)
    assert last.type == "message_stop"


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 1, "seed": 3, "top_p": 0.9, "top_k": 20},
        {"max_tokens": 4, "system": [{"type": "text", "text": "Be brief."}]},
        {"stop_sequences": ["France"]},
        {"messages": [*QUESTION, {"role": "assistant", "content": "The capital of"}]},
        {"allowed_token_ids": [2]},  # nothing but the end
    ],
)
async def test_a_stream_ends_as_the_whole_message(
    client: httpx.AsyncClient, wish: dict[str, Any]
) -> None:
    whole = await ask(client, **wish)
    _, _, *deltas, _, end, _ = await stream(client, **wish)
    assert "".join(delta.delta.text for delta in deltas) == text_of(whole)
    assert end.delta.stop_reason == whole.stop_reason
    assert end.delta.stop_sequence == whole.stop_sequence
    assert end.usage.output_tokens == whole.usage.output_tokens


async def test_why_it_stopped(client: httpx.AsyncClient) -> None:
    cut = await ask(client, max_tokens=2)
    assert (text_of(cut), cut.stop_reason) == ("The capital", "max_tokens")
    stopped = await ask(client, stop_sequences=["zzz", " France"])
    assert text_of(stopped) == "The capital of"
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " France")
    long = [{"role": "user", "content": "word " * 1980}]
    full = await ask(client, messages=long, max_tokens=100_000, ignore_eos=True)
    assert full.stop_reason == "model_context_window_exceeded"


async def test_a_last_message_of_the_assistant_is_continued(client: httpx.AsyncClient) -> None:
    blocks = [{"type": "text", "text": "The capital of"}]
    for content in ("The capital of", blocks):
        begun = {"role": "assistant", "content": content}
        message = await ask(client, messages=[*QUESTION, begun])
        assert text_of(message) == ANSWER.removeprefix("The capital of")


async def test_the_kinds_of_input_tokens_make_up_the_prompt(client: httpx.AsyncClient) -> None:
    body = {"messages": QUESTION, "system": "Some words to fill a block, and a few more of them."}
    counted = await client.post(f"{PATH}/count_tokens", json={**body, "model": MODEL})
    await ask(client, **body)
    usage = (await ask(client, **body)).usage
    assert usage.cache_read_input_tokens
    assert usage.cache_creation_input_tokens == 0
    total = usage.input_tokens + usage.cache_read_input_tokens
    assert counted.json() == {"input_tokens": total}


async def test_tools_are_shown_to_the_model(client: httpx.AsyncClient) -> None:
    choice = {"type": "none"}
    body = {"messages": QUESTION, "tools": [TOOL], "tool_choice": choice}
    counted = await client.post(f"{PATH}/count_tokens", json=body)
    function = {
        "name": "clock",
        "parameters": TOOL["input_schema"],
        "description": TOOL["description"],
    }
    tools = [{"type": "function", "function": function}]
    chat = {"messages": QUESTION, "tools": tools, "tool_choice": "none"}
    in_chat = await client.post("/v1/chat/completions/input_tokens", json=chat)
    assert counted.json()["input_tokens"] == in_chat.json()["input_tokens"] > 50
    assert (await ask(client, tools=[TOOL], tool_choice=choice, max_tokens=1)).content


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": []}]}, "a list of blocks, not empty"),
        ({"messages": [{"role": "system", "content": None}]}, "a list of blocks, not empty"),
        ({"messages": [{"role": "assistant", "content": []}]}, "does not end with text"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content: must be a string"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0]: the type 'image' is not supported",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0]: the type 'tool_result' is not supported",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "tool_result",
                                "tool_use_id": "1",
                                "content": [{"type": "image"}],
                            }
                        ],
                    }
                ]
            },
            "messages[0].content[0].content[0]: the type 'image'",
        ),
        (
            {"messages": [*QUESTION, {"role": "assistant", "content": [{"type": "tool_use"}]}]},
            "input: must be an object",
        ),
        ({"messages": [*QUESTION, {"role": "assistant", "content": ""}]}, "does not end with text"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "an object with a type"),
        ({"messages": [{"role": "user", "content": "x " * 4000}]}, "maximum context length"),
        ({"system": [{"type": "image"}]}, "system[0]: the type 'image'"),
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "greater than or equal to 1, got 0"),
        ({"temperature": 1.5}, "temperature: Input should be less than or equal to 1, got 1.5"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p must be a number in (0, 1]"),
        ({"stop_sequences": [""]}, "stop_sequences must be"),
        ({"stop_sequences": ["a"] * 5}, "stop_sequences may have 4 strings, got 5"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1024}},
            "thinking.budget_tokens=1024 needs a reasoning parser, which knows where thinking "
            "ends: start the server with --reasoning-parser, or leave thinking.budget_tokens out.",
        ),
        (
            {"thinking": {"type": "adaptive", "budget_tokens": 1024}},
            "thinking.budget_tokens: goes with the type enabled, not with adaptive",
        ),
        (
            {"output_config": {"effort": "ultra"}},
            "output_config.effort: Input should be 'none', 'minimal', 'low', 'medium', 'high'",
        ),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens: must be given"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"not": {"const": 1}}}}},
            "output_config.format: JSON schema: the keyword 'not' at #/not cannot be honoured",
        ),
        ({"output_config": {"effort": "low"}}, "output_config.effort='low' has no effect"),
        (
            {"output_format": {"type": "json_schema", "schema": {"not": {"const": 1}}}},
            "output_format: JSON schema: the keyword 'not' at #/not cannot be honoured",
        ),
        ({"output_format": {"type": "json_schema"}}, "output_format.schema: is missing"),
        (
            {
                "output_format": {"type": "json_schema", "schema": {}},
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            "output_format: is the earlier name of output_config.format, which is given too",
        ),
        (
            {
                "messages": [*QUESTION, {"role": "assistant", "content": "{"}],
                "output_format": {"type": "json_schema", "schema": {}},
            },
            "output_format: cannot be combined with a beginning of the answer",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "sundial"}},
            "does not match any of the specified `tools`: there is no 'sundial'",
        ),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name: a tool must be named"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "any", "name": "sundial"}},
            "tool_choice.name: goes with the type tool, not with any",
        ),
        (
            {"tools": [{"type": "bash_20250124", "name": "bash"}]},
            "no built-in tool 'bash_20250124'",
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]},
            "tools[0]: the server has no built-in tool 'web_search_20250305'",
        ),
        (
            {"tools": [{"type": "mcp_toolset", "mcp_server_name": "x"}]},
            "tools[0]: the server has no built-in tool 'mcp_toolset'",
        ),
        (
            {"tools": [{"name": "look_up"}]},
            "tools[0]: the server has no built-in tool 'look_up'; define a tool with an input",
        ),
        (
            {"tools": [{**TOOL, "type": None, "zzz": 1}]},
            "unknown field 'tools[0].zzz'",
        ),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema: is missing",
        ),
        (
            {
                "messages": [*QUESTION, {"role": "assistant", "content": "{"}],
                "output_config": {"format": {"type": "json_schema", "schema": {}}},
            },
            "output_config.format: cannot be combined with a beginning of the answer",
        ),
        ({"max_token": 3}, "unknown field 'max_token'; did you mean max_tokens"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong(
    client: httpx.AsyncClient, body: dict[str, Any], message: str
) -> None:
    response = await client.post(PATH, json={"max_tokens": 3, "messages": QUESTION, **body})
    assert response.status_code == 400
    answer = response.json()
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert message in answer["error"]["message"]


async def test_max_tokens_must_be_given(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"messages": QUESTION})
    assert response.json()["error"]["message"] == "max_tokens: Field required"


async def test_neutral_values_are_fine(client: httpx.AsyncClient) -> None:
    neutral = {
        "cache_control": {"type": "ephemeral"},
        "metadata": {"user_id": "me"},
        "output_config": {},
        "service_tier": "auto",
        "speed": "standard",
        "stop_sequences": [],
        "system": "",
        "thinking": {"type": "disabled"},
        "tool_choice": {"type": "auto"},
        "tools": [],
    }
    assert text_of(await ask(client, **neutral)) == ANSWER


async def test_the_default_effort_asks_nothing_of_a_template_that_reads_none(
    client: httpx.AsyncClient,
) -> None:
    high = {"output_config": {"effort": "high"}}
    assert text_of(await ask(client, **high)) == ANSWER
    counted = await client.post(f"{PATH}/count_tokens", json={"messages": QUESTION, **high})
    assert counted.status_code == 200


async def test_the_default_effort_reaches_a_template_that_reads_it(engine: AsyncLLM) -> None:
    async def counted(**fields: Any) -> int:
        body = {"messages": QUESTION, **fields}
        response = await client.post(f"{PATH}/count_tokens", json=body)
        assert response.status_code == 200, response.text
        number: int = response.json()["input_tokens"]
        return number

    state = ready_state(engine)
    template = "{% if reasoning_effort == 'high' %}a b c{% endif %}x"
    state.chat = ChatRenderer(engine.front.require_tokenizer(), template)
    async with in_process_client(state) as client:
        assert await counted(output_config={"effort": "high"}) > await counted()


async def test_errors_have_the_clients_form(client: httpx.AsyncClient, state: ServerState) -> None:
    for path in (PATH, f"{PATH}/count_tokens"):
        body = {"max_tokens": 3, "messages": QUESTION, "model": "claude"}
        if path != PATH:
            del body["max_tokens"]
        response = await client.post(path, json=body)
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "not_found_error"
    state.enter(Phase.DRAINING, "until all have ended")
    response = await client.post(PATH, json={"max_tokens": 3, "messages": QUESTION})
    assert (response.status_code, response.json()["error"]["type"]) == (503, "overloaded_error")


async def test_unknown_fields_may_be_let_through(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, strict_fields="warn")) as client:
        body = {"max_tokens": 1, "messages": QUESTION, "mood": "gay"}
        response = await client.post(PATH, json=body)
    assert response.status_code == 200
    assert response.headers["X-Quire-Ignored"] == "mood"
