"""``/v1/responses`` on the bundled model."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from openai.types.responses import Response

from quire.engine.async_engine import AsyncLLM
from quire.server.responses_thoughts import encoded_thought
from quire.server.state import ServerState
from tests.fakes.client_types import RESPONSE_EVENTS, checked_events
from tests.fakes.server import MODEL, in_process_client, ready_state
from tests.fakes.waiting import until

PATH = "/v1/responses"
QUESTION = "What is the capital of France?"
ANSWER = "The capital of France is Paris."
LOGPROBS = "message.output_text.logprobs"
TOOL = {"type": "function", "name": "clock", "parameters": {"type": "object"}, "strict": None}


async def respond(client: httpx.AsyncClient, **body: Any) -> Response:
    response = await client.post(PATH, json={"input": QUESTION, "temperature": 0, **body})
    assert response.status_code == 200, response.text
    return Response.model_validate(response.json(), strict=True)


def item_of(response: Response) -> Any:
    (item,) = response.output
    return item


async def stream(client: httpx.AsyncClient, **body: Any) -> list[Any]:
    whole = {"input": QUESTION, "temperature": 0, "stream": True, **body}
    response = await client.post(PATH, json=whole)
    assert response.status_code == 200, response.text
    return checked_events(response.text, RESPONSE_EVENTS)


async def test_the_whole_response(client: httpx.AsyncClient) -> None:
    response = await respond(client, instructions="Be brief.", metadata={"a": "b"}, user="me")
    assert response.id.startswith("resp_")
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert (response.user, response.temperature, response.top_p) == ("me", 0.0, 1.0)
    assert (response.error, response.incomplete_details) == (None, None)
    item = item_of(response)
    assert item.type == "message"
    assert (item.id.startswith("msg_"), item.role, item.status) == (True, "assistant", "completed")
    assert response.output_text == ANSWER
    usage = response.usage
    assert usage is not None
    assert (usage.output_tokens, usage.total_tokens - usage.input_tokens) == (10, 10)
    assert usage.output_tokens_details.reasoning_tokens == 0


async def test_the_prefix_cache_shows_in_the_usage(client: httpx.AsyncClient) -> None:
    long = "Tell me, please, once more: " * 4 + QUESTION
    await respond(client, input=long, max_output_tokens=1)
    usage = (await respond(client, input=long, max_output_tokens=1)).usage
    assert usage is not None
    assert usage.input_tokens_details.cached_tokens >= 32


async def test_nothing_is_kept_whatever_store_says(client: httpx.AsyncClient) -> None:
    body = {"input": QUESTION, "store": True, "max_output_tokens": 1}
    answer = (await client.post(PATH, json=body)).json()
    assert (answer["store"], answer["background"]) == (False, False)
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/input_items"), ("POST", "/cancel")):
        response = await client.request(method, f"{PATH}/{answer['id']}{path}")
        assert response.status_code == 404
        assert "keeps no state" in response.json()["error"]["message"]


async def test_the_sequence_of_events(client: httpx.AsyncClient) -> None:
    events = await stream(client)
    kinds = [event.type.removeprefix("response.") for event in events]
    before = ["created", "in_progress", "output_item.added", "content_part.added"]
    after = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    assert kinds[:4] == before
    assert kinds[-4:] == after
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events[4:-4]) == ANSWER
    created, item, part = events[0].response, events[2].item, events[3].part
    assert (created.status, created.output, created.usage) == ("in_progress", [], None)
    assert (item.status, item.content, part.text) == ("in_progress", [], "")
    text, part, item = events[-4].text, events[-3].part, events[-2].item
    assert (text, part.text, item.content) == (ANSWER, ANSWER, [part])
    last = events[-1].response
    assert (last.id, last.output, last.status) == (created.id, [item], "completed")
    placed = [event for event in events if hasattr(event, "item_id")]
    assert {event.item_id for event in placed} == {item.id}


@pytest.mark.parametrize(
    "wish",
    [
        {"temperature": 1.5, "seed": 3},
        {"include": [LOGPROBS]},
        {"top_logprobs": 2, "max_output_tokens": 5},
        {"max_output_tokens": 4, "instructions": "Be brief."},
        {"stop": "France"},
        {"input": "Say hello in Chinese.", "seed": 1, "temperature": 1},
        {"input": "x", "allowed_token_ids": [2]},  # nothing but the end
    ],
)
async def test_a_stream_ends_as_the_whole_response(
    client: httpx.AsyncClient, wish: dict[str, Any]
) -> None:
    whole = await respond(client, **wish)
    events = await stream(client, **wish)
    last = events[-1].response
    assert item_of(last).content == item_of(whole).content
    for name in ("status", "incomplete_details", "max_output_tokens", "instructions", "top_p"):
        assert getattr(last, name) == getattr(whole, name)
    assert whole.usage is not None
    assert last.usage.output_tokens == whole.usage.output_tokens
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == whole.output_text
    streamed = [one.token for event in deltas for one in event.logprobs]
    assert streamed == [one.token for one in item_of(whole).content[0].logprobs]


async def test_log_probabilities(client: httpx.AsyncClient) -> None:
    async def logprobs(**wish: Any) -> list[Any]:
        item = item_of(await respond(client, max_output_tokens=3, **wish))
        return list(item.content[0].logprobs)

    assert await logprobs() == []
    assert [one.top_logprobs for one in await logprobs(include=[LOGPROBS])] == [[], [], []]
    found = await logprobs(top_logprobs=2)
    assert [one.token for one in found] == ["The", " capital", " of"]
    assert bytes(found[1].bytes) == b" capital"
    assert [len(one.top_logprobs) for one in found] == [2, 2, 2]


async def test_what_is_cut_off_is_incomplete(client: httpx.AsyncClient) -> None:
    response = await respond(client, max_output_tokens=2)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert item_of(response).status == "incomplete"
    assert response.output_text == "The capital"
    assert (await stream(client, max_output_tokens=2))[-1].type == "response.incomplete"


async def test_a_bound_above_the_context_is_fine(client: httpx.AsyncClient) -> None:
    response = await respond(client, max_output_tokens=100_000)
    assert (response.output_text, response.max_output_tokens) == (ANSWER, 100_000)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_what_a_time_limit_cuts_off_has_a_reason_too(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool
) -> None:
    """Clients fail on null; the API has no reason of its own for this."""
    body = {"ignore_eos": True, "timeout_s": 1000}
    answer = asyncio.create_task((stream if is_stream else respond)(client, **body))
    await until(lambda: any(one.num_output_tokens > 3 for one in state.running))
    (running,) = state.running
    running.cancel.__self__.pass_limit("timeout_s", 1000)  # type: ignore[attr-defined]
    response: Any = (await answer)[-1].response if is_stream else await answer
    assert response.status == item_of(response).status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.output_text.startswith("The capital")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_cancelled_response_says_so(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool
) -> None:
    body = {"input": "x", "ignore_eos": True, "request_id": "a", "stream": is_stream}
    call = asyncio.create_task(client.post(PATH, json=body))

    async def until_running() -> None:
        while state.running.get("a") is None:
            await asyncio.sleep(0)

    await asyncio.wait_for(until_running(), timeout=20)
    assert (await client.post("/v1/requests/a/cancel")).status_code == 200
    answer = await call
    if is_stream:
        last = checked_events(answer.text, RESPONSE_EVENTS)[-1]
        assert last.type == "response.incomplete"
        response = last.response
    else:
        response = Response.model_validate(answer.json(), strict=True)
    assert (response.id, response.status) == ("resp_a", "cancelled")
    assert response.output[0].status == "incomplete"


async def test_a_response_tells_what_was_asked_for(client: httpx.AsyncClient) -> None:
    wish = {"presence_penalty": 0.5, "frequency_penalty": -0.25, "max_output_tokens": 1}
    answer = (
        await client.post(PATH, json={"input": "x", "prompt_cache_retention": "24h", **wish})
    ).json()
    assert {name: answer[name] for name in wish} == wish
    assert (answer["prompt_cache_retention"], answer["prompt"]) == ("24h", None)
    unset = (await client.post(PATH, json={"input": "x", "max_output_tokens": 1})).json()
    assert (unset["presence_penalty"], unset["frequency_penalty"]) == (0.0, 0.0)
    assert unset["prompt_cache_retention"] is None


@pytest.mark.parametrize("request_id", ["own", "resp_own"])
async def test_a_request_id_may_be_the_id_of_the_response(
    client: httpx.AsyncClient, request_id: str
) -> None:
    response = await respond(client, max_output_tokens=1, request_id=request_id)
    assert response.id == "resp_own"


async def test_a_conversation_is_sent_back_as_it_came(client: httpx.AsyncClient) -> None:
    first = {"role": "user", "content": [{"type": "input_text", "text": "What is 3 plus 4?"}]}
    answer = (await client.post(PATH, json={"input": [first], "temperature": 0})).json()
    history = [first, *answer["output"], {"type": "message", "role": "user", "content": QUESTION}]
    assert (await respond(client, input=history)).output_text == ANSWER


async def test_tools_are_shown_to_the_model(client: httpx.AsyncClient) -> None:
    tools = {"tools": [TOOL], "tool_choice": "none"}
    response = await respond(client, **tools, max_output_tokens=1)
    assert [tool.type for tool in response.tools] == ["function"]
    assert response.tool_choice == "none"
    in_chat = {"type": "function", "function": {"name": "clock", "parameters": TOOL["parameters"]}}
    chat = {"messages": [{"role": "user", "content": QUESTION}], "tools": [in_chat]}
    path = "/v1/chat/completions/input_tokens"
    counted = await client.post(path, json={**chat, "tool_choice": "none"})
    assert response.usage is not None
    assert response.usage.input_tokens == counted.json()["input_tokens"]


async def test_input_tokens_are_counted(client: httpx.AsyncClient) -> None:
    body = {"input": QUESTION, "instructions": "Be brief.", "model": MODEL}
    counted = await client.post(f"{PATH}/input_tokens", json=body)
    usage = (await respond(client, **body, max_output_tokens=1)).usage
    assert usage is not None
    tokens = usage.input_tokens
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": tokens}
    only_system = await client.post(f"{PATH}/input_tokens", json={"instructions": "Be brief."})
    assert 0 < only_system.json()["input_tokens"] < tokens


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"input": None}, "input", "a string or a list of items, got None"),
        ({"input": 3}, "input", "a string or a list of items, got 3"),
        ({"input": []}, "input", "at least one message"),
        ({"input": ["x"]}, "input[0]", "an object with a type, got 'x'"),
        ({"input": [{"role": "usr", "content": "x"}]}, "input[0].role", "got 'usr'"),
        ({"input": [{"role": "user"}]}, "input[0].content", "a list of text parts, got None"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0].type",
            "the type 'input_image' is not supported",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
            "input[0].content[0].text",
            "must be a string, got None",
        ),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "keeps no state"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]", "set store to false"),
        (
            {"input": [{"type": "reasoning", "encrypted_content": 3}]},
            "input[0].encrypted_content",
            "must be a string, got 3",
        ),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type", "'web_search_call' is not"),
        (
            {"input": [{"type": "function_call", "call_id": "1", "name": "f"}]},
            "input[0].arguments",
            "must be a string",
        ),
        ({"input": "x " * 4000}, "input", "This model's maximum context length is 2048 tokens"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "keeps no state"),
        ({"conversation": "conv_1"}, "conversation", "keeps no state"),
        ({"background": True}, "background", "background is not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "stores no prompts"),
        (
            {"previous_input_messages": [{"role": "user"}]},
            "previous_input_messages",
            "keeps no state",
        ),
        ({"enable_response_messages": True}, "enable_response_messages", "return_prompt_text"),
        (
            {
                "structured_outputs": {"choice": ["a"]},
                "text": {"format": {"type": "json_object"}},
            },
            "structured_outputs",
            "structured_outputs and text.format both constrain the answer",
        ),
        (
            {"structured_outputs": {"regex": "("}},
            "structured_outputs",
            "structured_outputs: ",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1, got 0"),
        ({"temperature": 3}, "temperature", "temperature must be a number in [0, 2], got 3"),
        ({"include": ["x"]}, "include[0]", "message.output_text.logprobs"),
        ({"top_logprobs": 99}, "top_logprobs", "top_logprobs must be at most max_logprobs=20"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format", "text.format: type must be one of"),
        (
            {
                "text": {
                    "format": {"type": "json_schema", "name": "x", "schema": {"not": {"const": 1}}}
                }
            },
            "text.format",
            "text.format: JSON schema: the keyword 'not' at #/not cannot be honoured",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "text.format.schema",
            "text.format.schema: is missing; give the JSON schema of the answer",
        ),
        (
            {"input": [{"type": None, "role": "user", "content": "x", "zzz": 1}]},
            "input[0].zzz",
            "unknown field 'input[0].zzz'",
        ),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "text.verbosity is not supported"),
        (
            {"reasoning": {"effort": "low"}},
            "reasoning.effort",
            "reasoning.effort='low' has no effect: the model's chat template reads no variable for",
        ),
        ({"reasoning": {"effort": "ultra"}}, "reasoning.effort", "reasoning.effort: Input should"),
        (
            {"tools": [TOOL], "top_logprobs": 1},
            "include",
            "logprobs cannot be returned here together with tools",
        ),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "sundial"}},
            "tool_choice",
            "does not match any of the specified `tools`: there is no 'sundial'",
        ),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "'mcp' is not supported"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search'"),
        ({"tool_choice": "required"}, "tool_choice", "`tools` must be set"),
        ({"max_tokens": 3}, "max_tokens", "unknown field 'max_tokens'"),
        ({"metadata": {"a": 1}}, "metadata.a", "a valid string"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None, message: str
) -> None:
    response = await client.post(PATH, json={"input": QUESTION, **body})
    error = response.json()["error"]
    assert message in error["message"]
    assert (response.status_code, error["param"]) == (400, param)


async def test_neutral_values_are_fine(client: httpx.AsyncClient) -> None:
    neutral = {
        "background": False,
        "enable_response_messages": False,
        "previous_input_messages": None,
        "conversation": None,
        "include": ["reasoning.encrypted_content"],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": "k",
        "reasoning": {"effort": None, "summary": "auto"},
        "service_tier": "auto",
        "stream_options": {"include_obfuscation": False},
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "truncation": "disabled",
    }
    assert (await respond(client, **neutral)).output_text == ANSWER


async def test_the_constraints_of_vllm_are_followed(client: httpx.AsyncClient) -> None:
    response = await respond(client, structured_outputs={"choice": ["seven"]})
    assert response.output_text == "seven"


@pytest.mark.parametrize("is_told", [None, True, False])
async def test_thoughts_may_be_left_out(engine: AsyncLLM, is_told: bool | None) -> None:
    state = ready_state(engine, reasoning_parser="deepseek_r1")  # whose models always think first
    async with in_process_client(state) as client:
        response = await respond(client, include_reasoning=is_told)
    assert item_of(response).type == ("message" if is_told is False else "reasoning")
    assert response.output_text == ""


@pytest.mark.parametrize("include", [None, ["reasoning.encrypted_content"]])
async def test_thoughts_are_encoded_for_clients_that_keep_the_state(
    engine: AsyncLLM, include: list[str] | None
) -> None:
    """They send the item back without its text."""
    state = ready_state(engine, reasoning_parser="deepseek_r1")
    async with in_process_client(state) as client:
        thought = item_of(await respond(client, include=include))
        events = await stream(client, include=include)
        done = next(one.item for one in events if one.type == "response.output_item.done")
        for item in (thought, done, item_of(events[-1].response)):
            assert item.content[0].text == ANSWER
            encoded = item.encrypted_content
            assert encoded == (encoded_thought(ANSWER) if include else None)


async def test_the_form_of_the_answer_is_told_again(client: httpx.AsyncClient) -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}}
    body = {"input": QUESTION, "max_output_tokens": 2, "text": {"format": form}}
    assert (await client.post(PATH, json=body)).json()["text"]["format"] == form


async def test_another_model_is_not_found(client: httpx.AsyncClient) -> None:
    for path in (PATH, f"{PATH}/input_tokens"):
        response = await client.post(path, json={"input": "x", "model": "gpt"})
        assert response.status_code == 404
        assert response.json()["error"]["param"] == "model"


async def test_unknown_fields_may_be_let_through(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, strict_fields="warn")) as client:
        body = {"input": "x", "max_output_tokens": 1, "max_tokens": 3}
        response = await client.post(PATH, json=body)
    assert response.status_code == 200
    assert response.headers["X-Quire-Ignored"] == "max_tokens"
