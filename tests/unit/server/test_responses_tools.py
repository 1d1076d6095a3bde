"""Tools of the Responses API as functions of chat: namespaces, and the names of both."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from quire.server.answer_form import ToolCall
from quire.server.errors import HTTPError
from quire.server.responses_tools import ResponseTools
from tests.fakes.server import MODEL
from tests.fakes.weather import ANSWER_PARTS, ARGUMENTS, PARAMETERS, QUESTION, RESULT

PATH = "/v1/responses"


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": PARAMETERS, **more}


def namespace(name: str, *tools: Any, **more: Any) -> dict[str, Any]:
    return {"type": "namespace", "name": name, "tools": [*tools], **more}


TWO: list[dict[str, Any]] = [
    function("get"),
    namespace("mcp__oslo__", function("get"), function("set")),
    namespace("lima", function("get")),
]


def test_functions_of_namespaces_have_names_of_their_own() -> None:
    tools = ResponseTools(TWO)
    names = [tool["function"]["name"] for tool in tools.in_chat]
    assert names == ["get", "mcp__oslo__get", "mcp__oslo__set", "lima__get"]
    called = [tools.own(ToolCall("1", name)) for name in [*names, "other"]]
    assert [(call.namespace, call.name) for call in called] == [
        (None, "get"),
        ("mcp__oslo__", "get"),
        ("mcp__oslo__", "set"),
        ("lima", "get"),
        (None, "other"),
    ]
    assert tools.places["tools[2].function.parameters"] == "tools[1].tools[1].parameters"


def test_what_is_said_about_a_namespace_stands_before_its_first_function() -> None:
    tools = ResponseTools(
        [namespace("a", function("f", description="One."), function("g"), description="All.")]
    )
    found = [tool["function"].get("description") for tool in tools.in_chat]
    assert found == ["All.\n\nOne.", None]


def test_a_choice_means_the_one_function_of_its_name() -> None:
    tools = ResponseTools(TWO)
    chosen = [tools.choice({"type": "function", "name": name}) for name in ("set", "get", "x")]
    assert [choice["function"]["name"] for choice in chosen if isinstance(choice, dict)] == [
        *("mcp__oslo__set", "get", "x")
    ]


@pytest.mark.parametrize(
    ("tool", "place", "message"),
    [
        (namespace("a", {"type": "custom", "name": "f"}), "tools[0].tools[0].type", "free text"),
        (namespace("a", namespace("b")), "tools[0].tools[0].type", "of the type 'namespace'"),
        ({"type": "namespace", "name": "a"}, "tools[0].tools", "must be a list of functions"),
        ({"type": "namespace", "tools": []}, "tools[0].name", "must be a string"),
        (namespace("a", {"type": "function"}), "tools[0].tools[0].name", "must be a string"),
        ({"type": "custom", "name": "f"}, "tools[0].type", "define a function with one string"),
        (
            {"type": "web_search"},
            "tools[0].type",
            "tools of the type 'web_search' are not supported",
        ),
    ],
)
def test_what_is_no_function_is_refused_by_name(
    tool: dict[str, Any], place: str, message: str
) -> None:
    with pytest.raises(HTTPError) as caught:
        ResponseTools([tool])
    assert caught.value.param == place and message in caught.value.message


async def test_functions_of_one_name_are_told_where_they_stand(client: httpx.AsyncClient) -> None:
    tools = [function("a__f"), namespace("a", function("f"))]
    response = await client.post(PATH, json={"input": "x", "tools": tools})
    error = response.json()["error"]
    assert error["param"] == "tools[1].tools[0].name"
    assert error["message"].startswith("tools[1].tools[0].name: there is already a tool 'a__f'")


async def test_the_client_gets_the_namespace_and_sends_it_back(client: httpx.AsyncClient) -> None:
    own = openai.AsyncOpenAI(
        api_key="none", base_url="http://localhost/v1", http_client=client, max_retries=0
    )
    tools = [namespace("city", function("get_weather"), description="About cities.")]
    common: Any = {"model": MODEL, "temperature": 0, "tools": tools, "tool_choice": "required"}
    common["parallel_tool_calls"] = False
    whole = await own.responses.create(input=QUESTION, **common)
    async with own.responses.stream(input=QUESTION, **common) as stream:
        events = [event async for event in stream]
        streamed = await stream.get_final_response()
    for response in (whole, streamed):
        (item,) = response.output
        assert item.type == "function_call"
        assert (item.namespace, item.name) == ("city", "get_weather")
        assert json.loads(item.arguments) == ARGUMENTS
    (added,) = [event.item for event in events if event.type == "response.output_item.added"]
    assert added.type == "function_call"
    assert (added.namespace, added.name) == ("city", "get_weather")

    (item,) = whole.output
    assert item.type == "function_call"
    output = {"type": "function_call_output", "call_id": item.call_id, "output": RESULT}
    history: Any = [{"role": "user", "content": QUESTION}, item.model_dump(), output]
    answer = await own.responses.create(input=history, **{**common, "tool_choice": "auto"})
    assert all(part in answer.output_text for part in ANSWER_PARTS)


@pytest.mark.parametrize("arguments", ['{"city": "Os', "[1]"])
async def test_a_call_whose_arguments_are_no_object_can_be_sent_back(
    client: httpx.AsyncClient, arguments: str
) -> None:
    call = {"type": "function_call", "call_id": "1", "name": "f", "arguments": arguments}
    output = {"type": "function_call_output", "call_id": "1", "output": "no JSON"}
    history = [{"role": "user", "content": "x"}, call, output]
    body = {"input": history, "max_output_tokens": 1}
    response = await client.post(PATH, json=body)
    assert response.status_code == 200, response.text
    as_block = {"type": "tool_use", "id": "1", "name": "f", "input": {"INVALID_JSON": arguments}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": "no JSON"}
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": [as_block]},
        {"role": "user", "content": [result]},
    ]
    counted = await client.post("/v1/messages/count_tokens", json={"messages": messages})
    assert counted.json()["input_tokens"] == response.json()["usage"]["input_tokens"]
