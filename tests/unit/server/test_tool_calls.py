"""The bundled model calls a tool; whatever the API, a stream tells what the whole answer tells."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from quire.engine.async_engine import AsyncLLM
from tests.fakes.server import ANSWER, MODEL, events_of, in_process_client, ready_state
from tests.fakes.server import QUESTION as CAPITAL
from tests.fakes.weather import (
    ANSWER_PARTS,
    ARGUMENTS,
    DESCRIPTION,
    PARAMETERS,
    QUESTION,
    RESULT,
    TOOL,
    TWO_CITIES,
)

PATH = "/v1/chat/completions"
FLAT_TOOL: Any = {"type": "function", **TOOL["function"]}
ANTHROPIC_TOOL: Any = {
    "name": "get_weather",
    "description": DESCRIPTION,
    "input_schema": PARAMETERS,
}


def asking(question: str = QUESTION, **body: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}]
    return {"messages": messages, "tools": [TOOL], "temperature": 0, **body}


async def chat(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.post(PATH, json=asking(**body))
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]


async def deltas(client: httpx.AsyncClient, **body: Any) -> tuple[list[dict[str, Any]], str]:
    """The deltas of a stream, and its finish reason."""
    response = await client.post(PATH, json=asking(stream=True, **body))
    assert response.status_code == 200, response.text
    choices = [event["choices"][0] for event in events_of(response.text)[:-1]]
    return [choice["delta"] for choice in choices], choices[-1]["finish_reason"]


def called(message: dict[str, Any]) -> list[tuple[str, Any]]:
    functions = [call["function"] for call in message["tool_calls"]]
    return [(one["name"], json.loads(one["arguments"])) for one in functions]


async def test_the_model_calls_a_tool(client: httpx.AsyncClient) -> None:
    choice = await chat(client)
    assert called(choice["message"]) == [("get_weather", ARGUMENTS)]
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function" and call["id"].startswith("chatcmpl-tool-")


async def test_a_streamed_call_begins_with_its_name_and_goes_on_with_arguments(
    client: httpx.AsyncClient,
) -> None:
    found, reason = await deltas(client)
    calls = [delta["tool_calls"][0] for delta in found if "tool_calls" in delta]
    assert calls[0] | {"id": ""} == {
        "index": 0,
        "id": "",
        "type": "function",
        "function": {"name": "get_weather", "arguments": ""},
    }
    assert all(call.keys() == {"index", "function"} for call in calls[1:])
    assert json.loads("".join(call["function"]["arguments"] for call in calls)) == ARGUMENTS
    assert len(calls) > 3
    assert not any(delta.get("content") for delta in found)
    assert reason == "tool_calls"


async def test_the_result_of_a_tool_becomes_an_answer(client: httpx.AsyncClient) -> None:
    asked = asking()["messages"]
    message = (await chat(client))["message"]
    result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": RESULT}
    choice = await chat(client, messages=[*asked, message, result])
    assert choice["finish_reason"] == "stop"
    assert all(part in choice["message"]["content"] for part in ANSWER_PARTS)


async def test_several_calls_and_only_the_first_if_they_shall_not_be_parallel(
    client: httpx.AsyncClient,
) -> None:
    both = [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Lima"})]
    for body, expected in (({}, both), ({"parallel_tool_calls": False}, both[:1])):
        message = (await chat(client, question=TWO_CITIES, **body))["message"]
        assert called(message) == expected and message["content"] is None
        found, _ = await deltas(client, question=TWO_CITIES, **body)
        begun = [
            call["index"]
            for delta in found
            for call in delta.get("tool_calls", ())
            if "name" in call["function"]
        ]
        assert begun == list(range(len(expected)))


async def test_a_question_without_need_for_tools_is_answered(client: httpx.AsyncClient) -> None:
    choice = await chat(client, question=CAPITAL)
    assert choice["message"]["content"] == ANSWER
    assert "tool_calls" not in choice["message"]
    found, reason = await deltas(client, question=CAPITAL)
    assert "".join(delta.get("content") or "" for delta in found) == ANSWER
    assert (choice["finish_reason"], reason) == ("stop", "stop")


async def test_a_call_that_is_cut_off_ends_with_length(client: httpx.AsyncClient) -> None:
    whole = await chat(client, max_tokens=17, logprobs=True)
    assert whole["finish_reason"] == "length"
    (call,) = whole["message"]["tool_calls"]
    assert '{"city": "Oslo"}'.startswith(call["function"]["arguments"])
    found, reason = await deltas(client, max_tokens=17)
    pieces = [
        one["function"]["arguments"] for delta in found for one in delta.get("tool_calls", ())
    ]
    assert ("".join(pieces), reason) == (call["function"]["arguments"], "length")
    assert len(whole["logprobs"]["content"]) == 17


async def test_a_call_that_a_stop_string_breaks_off_ends_with_stop(
    client: httpx.AsyncClient,
) -> None:
    whole = await chat(client, stop=["Oslo"])
    (call,) = whole["message"]["tool_calls"]
    assert (call["function"]["arguments"], whole["finish_reason"]) == ('{"city": "', "stop")
    assert (await deltas(client, stop=["Oslo"]))[1] == "stop"
    assert (await chat(client, stop=["</tool_call>"]))["finish_reason"] == "tool_calls"


async def test_every_token_of_a_stream_has_its_log_probability(client: httpx.AsyncClient) -> None:
    whole = await chat(client, logprobs=True, return_token_ids=True)
    response = await client.post(
        PATH, json=asking(stream=True, logprobs=True, return_token_ids=True)
    )
    choices = [event["choices"][0] for event in events_of(response.text)[:-1]]
    told = [one for choice in choices for one in (choice["logprobs"] or {}).get("content", ())]
    assert [one["token"] for one in told] == [one["token"] for one in whole["logprobs"]["content"]]
    ids = [token for choice in choices for token in choice.get("token_ids", ())]
    assert ids == whole["token_ids"]


async def test_without_calls_the_text_is_content(client: httpx.AsyncClient) -> None:
    choice = await chat(client, tool_choice="none")
    assert choice["message"]["content"].startswith("<tool_call>")
    assert "tool_calls" not in choice["message"]


async def test_tools_can_be_left_out_of_the_prompt(engine: AsyncLLM) -> None:
    state = ready_state(engine, exclude_tools_when_tool_choice_none=True)
    async with in_process_client(state) as client:
        for choice, is_shown in (("none", False), ("auto", True)):
            body = asking(tool_choice=choice)
            prompt = (await client.post("/apply-template", json=body)).json()["prompt"]
            assert ("get_weather" in prompt) is is_shown


async def test_a_server_without_a_parser_says_what_it_needs(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, enable_auto_tool_choice=False)) as client:
        response = await client.post(PATH, json=asking())
        assert response.status_code == 400
        assert "--tool-call-parser" in response.json()["error"]["message"]
        assert (await client.post(PATH, json=asking(tool_choice="none"))).status_code == 200


async def test_a_parser_that_is_named_is_used(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, tool_call_parser="mistral")) as client:
        message = (await chat(client))["message"]
        assert message["content"].startswith("<tool_call>") and "tool_calls" not in message


NAMED = {"type": "function", "function": {"name": "get_weather"}}


async def test_calls_can_be_forced(client: httpx.AsyncClient) -> None:
    """A call that one asked for by name ends the answer as any text does."""
    for choice, expected in (("required", "tool_calls"), (NAMED, "stop")):
        whole = await chat(client, question=CAPITAL, tool_choice=choice, max_tokens=200)
        (call,) = whole["message"]["tool_calls"]
        assert call["function"]["name"] == "get_weather"
        assert json.loads(call["function"]["arguments"]).keys() == {"city"}
        assert (whole["message"]["content"], whole["finish_reason"]) == ("", expected)
        found, reason = await deltas(client, question=CAPITAL, tool_choice=choice, max_tokens=200)
        pieces = [one["function"] for delta in found for one in delta.get("tool_calls", ())]
        assert "".join(one["arguments"] for one in pieces) == call["function"]["arguments"]
        assert reason == expected


async def test_of_a_forced_call_that_is_cut_off_no_text_is_told(client: httpx.AsyncClient) -> None:
    for choice in ("required", NAMED):
        whole = await chat(client, tool_choice=choice, max_tokens=6)
        assert (whole["message"]["content"], whole["finish_reason"]) == ("", "length")
        assert "tool_calls" not in whole["message"]
        found, reason = await deltas(client, tool_choice=choice, max_tokens=6)
        assert not any(delta.get("content") or "tool_calls" in delta for delta in found)
        assert reason == "length"
    free = await chat(client, max_tokens=6)
    assert free["message"]["content"].startswith("<tool_call>")


async def test_nor_behind_calls_that_are_whole(client: httpx.AsyncClient) -> None:
    """Wherever the cut falls, with the beginning of a call or within its arguments."""
    counts = set()
    for max_tokens in range(20, 48, 3):
        body = {"tool_choice": "required", "ignore_eos": True, "max_tokens": max_tokens}
        whole = await chat(client, **body)
        assert (whole["message"]["content"], whole["finish_reason"]) == ("", "length")
        calls = [call["function"] for call in whole["message"]["tool_calls"]]
        counts.add(len(calls))
        assert all(json.loads(one["arguments"]) == ARGUMENTS for one in calls[:-1])
        found, _ = await deltas(client, **body)
        assert not any(delta.get("content") for delta in found)
        pieces = [one["function"] for delta in found for one in delta.get("tool_calls", ())]
        told = "".join(one["arguments"] for one in calls)
        assert "".join(one["arguments"] for one in pieces) == told
    assert counts > {1}


async def test_a_forced_call_that_is_cut_off_is_no_item_of_a_response(
    client: httpx.AsyncClient,
) -> None:
    common = {"input": QUESTION, "tools": [FLAT_TOOL], "temperature": 0, "ignore_eos": True}
    for max_tokens, statuses in ((6, []), (25, ["completed"])):
        body = {**common, "tool_choice": "required", "max_output_tokens": max_tokens}
        whole = (await client.post("/v1/responses", json=body)).json()
        streamed = await client.post("/v1/responses", json={**body, "stream": True})
        events = _named_events(streamed.text)
        for response in (whole, events[-1]["response"]):
            assert response["status"] == "incomplete"
            assert {item["type"] for item in response["output"]} <= {"function_call"}
            assert [item["status"] for item in response["output"]] == statuses
        assert not any("output_text" in event["type"] for event in events)


async def test_a_forced_call_that_is_cut_off_is_no_block_of_a_message(
    client: httpx.AsyncClient,
) -> None:
    messages = asking()["messages"]
    for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
        body = {"model": MODEL, "messages": messages, "tools": [ANTHROPIC_TOOL], "max_tokens": 6}
        body |= {"tool_choice": choice, "temperature": 0}
        whole = (await client.post("/v1/messages", json=body)).json()
        assert (whole["content"], whole["stop_reason"]) == ([], "max_tokens")
        streamed = await client.post("/v1/messages", json={**body, "stream": True})
        kinds = [event["type"] for event in _named_events(streamed.text)]
        assert kinds == ["message_start", "ping", "message_delta", "message_stop"]


def _named_events(text: str) -> list[dict[str, Any]]:
    """Of a stream whose events have names."""
    return [events_of(one.partition("\n")[2])[0] for one in text.split("\n\n") if one]


@pytest.mark.parametrize("has_parser", [True, False])
@pytest.mark.parametrize("parameters", [{}, {"parameters": None}, {"parameters": {}}])
async def test_a_tool_without_parameters_is_forced_without_arguments(
    engine: AsyncLLM, has_parser: bool, parameters: dict[str, Any]
) -> None:
    function = {"name": "now", **parameters}
    named: Any = {"type": "function", "function": {"name": "now"}}
    state = ready_state(engine, enable_auto_tool_choice=has_parser)
    async with in_process_client(state) as client:
        for choice in ("required", named):
            body = {"tools": [{"type": "function", "function": function}], "tool_choice": choice}
            more = {**body, "parallel_tool_calls": False, "max_tokens": 60}
            (call,) = (await chat(client, **more))["message"]["tool_calls"]
            assert call["function"] == {"name": "now", "arguments": "{}"}
            found, _ = await deltas(client, **more)
            pieces = [one["function"] for delta in found for one in delta.get("tool_calls", ())]
            assert "".join(one["arguments"] for one in pieces) == "{}"
        body = {"input": QUESTION, "tools": [{"type": "function", **function}]}
        body |= {"tool_choice": "required", "parallel_tool_calls": False, "temperature": 0}
        (item,) = (await client.post("/v1/responses", json=body)).json()["output"]
        assert (item["name"], item["arguments"]) == ("now", "{}")


async def test_calls_can_be_forced_of_models_that_call_nothing(engine: AsyncLLM) -> None:
    """Then the grammar is of plain JSON."""
    async with in_process_client(ready_state(engine, enable_auto_tool_choice=False)) as client:
        for choice in ("required", NAMED):
            whole = await chat(client, tool_choice=choice, max_tokens=200)
            ((name, arguments),) = called(whole["message"])
            assert name == "get_weather" and arguments.keys() == {"city"}


async def test_tools_that_the_template_does_not_show_are_refused_unless_a_grammar_forces_them(
    engine: AsyncLLM,
) -> None:
    blind = {"chat_template": "No tools. {{ messages[0].content }}", "max_tokens": 200}
    state = ready_state(engine, trust_request_chat_template=True)
    async with in_process_client(state) as client:
        for choice in (None, "auto"):
            response = await client.post(PATH, json=asking(tool_choice=choice, **blind))
            error = response.json()["error"]
            assert (response.status_code, error["param"]) == (400, "tools")
            assert error["message"].startswith("tools have no effect: ")
        assert (await chat(client, tool_choice="none", **blind))["message"]["content"]
        for choice in ("required", NAMED):
            ((name, _),) = called((await chat(client, tool_choice=choice, **blind))["message"])
            assert name == "get_weather"


@pytest.mark.parametrize("name", ["x" * 257, "a<b ", "a\nb", " "])
async def test_a_name_that_no_parser_could_read_is_refused(
    client: httpx.AsyncClient, name: str
) -> None:
    for choice in ("auto", "required", {"type": "function", "function": {"name": name}}):
        body = asking(tools=[{"type": "function", "function": {"name": name}}], tool_choice=choice)
        response = await client.post(PATH, json=body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert "at most 256 characters" in error["message"]
        assert f"({len(name)} characters)" in error["message"]
        assert error["param"] == "tools[0].function.name"
    common = {"model": MODEL, "max_tokens": 9, "messages": asking()["messages"]}
    for path, body in (
        ("/v1/responses", {"input": QUESTION, "tools": [{"type": "function", "name": name}]}),
        ("/v1/messages", {**common, "tools": [{**ANTHROPIC_TOOL, "name": name}]}),
    ):
        response = await client.post(path, json=body)
        assert response.status_code == 400
        assert "at most 256 characters" in response.json()["error"]["message"]


@pytest.mark.parametrize("name", ["x" * 256, "a<b>", "get the weather", "Wetter für 東京"])
@pytest.mark.parametrize("has_parser", [True, False])
async def test_every_other_name_can_be_forced(
    engine: AsyncLLM, name: str, has_parser: bool
) -> None:
    named: Any = {"type": "function", "function": {"name": name}}
    async with in_process_client(ready_state(engine, enable_auto_tool_choice=has_parser)) as client:
        for choice in ("required", named):
            more = {"tools": [named], "tool_choice": choice, "max_tokens": 400}
            whole = await chat(client, parallel_tool_calls=False, **more)
            assert called(whole["message"]) == [(name, {})]


async def test_counting_tokens_needs_no_parser(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, enable_auto_tool_choice=False)) as client:
        body = {"messages": asking()["messages"], "tools": [ANTHROPIC_TOOL]}
        counted = await client.post("/v1/messages/count_tokens", json=body)
        assert counted.status_code == 200


async def test_the_responses_client_gets_the_call_and_sends_its_result(
    client: httpx.AsyncClient,
) -> None:
    async with openai.AsyncOpenAI(
        api_key="none", base_url="http://localhost/v1", http_client=client, max_retries=0
    ) as own:
        common: Any = {"model": MODEL, "temperature": 0, "tools": [FLAT_TOOL]}
        whole = await own.responses.create(input=QUESTION, **common)
        async with own.responses.stream(input=QUESTION, **common) as stream:
            kinds = [event.type async for event in stream]
            streamed = await stream.get_final_response()
        for response in (whole, streamed):
            (item,) = response.output
            assert item.type == "function_call"
            assert (item.name, json.loads(item.arguments)) == ("get_weather", ARGUMENTS)
            assert (item.status, response.status) == ("completed", "completed")
        assert "response.function_call_arguments.delta" in kinds
        assert kinds[-3:] == [
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.completed",
        ]
        (item,) = whole.output
        assert item.type == "function_call"
        output = {"type": "function_call_output", "call_id": item.call_id, "output": RESULT}
        history: Any = [{"role": "user", "content": QUESTION}, item.model_dump(), output]
        answer = await own.responses.create(input=history, **common)
        assert all(part in answer.output_text for part in ANSWER_PARTS)
