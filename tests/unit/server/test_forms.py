"""Objects inside bodies: those in the form of another API, and those with clients' own notes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from tests.fakes.server import in_process_client, ready_state

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
USER = {"role": "user", "content": "x"}
BASES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER], "max_tokens": 1},
    "/v1/completions": {"prompt": "x", "max_tokens": 1},
    RESPONSES: {"input": "x", "max_output_tokens": 1},
    MESSAGES: {"messages": [USER], "max_tokens": 1},
}


def tool(given: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [given]}


def choice(given: dict[str, Any]) -> dict[str, Any]:
    nested = {"type": "function", "function": {"name": "my_function"}}
    return {**tool(nested), "tool_choice": given}


def flat_choice(given: dict[str, Any]) -> dict[str, Any]:
    return {**tool({"type": "function", "name": "my_function"}), "tool_choice": given}


def answer(given: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": given}


def json_schema(given: dict[str, Any]) -> dict[str, Any]:
    return answer({"type": "json_schema", "json_schema": given})


def text_format(given: dict[str, Any]) -> dict[str, Any]:
    return {"text": {"format": given}}


def output_format(given: dict[str, Any]) -> dict[str, Any]:
    return {"output_config": {"format": given}}


SCHEMA = {"name": "x", "schema": {"type": "object"}}
NESTED = {"type": "function", "function": {"name": "f"}}
FLAT = {"type": "function", "name": "my_function", "parameters": {"type": "object"}}
NESTED_SCHEMA = {"type": "json_schema", "json_schema": SCHEMA}
# A body made of an object in another API's form; the key that the object lacks.
MISSHAPEN = [
    (CHAT, tool, FLAT, "tools[0].function"),
    (CHAT, choice, FLAT, "tool_choice.function"),
    (CHAT, answer, {"type": "json_schema", **SCHEMA}, "response_format.json_schema"),
    ("/v1/completions", json_schema, {"type": "object"}, "response_format.json_schema.schema"),
    (RESPONSES, tool, NESTED, "tools[0].name"),
    (RESPONSES, flat_choice, NESTED, "tool_choice.name"),
    (RESPONSES, text_format, NESTED_SCHEMA, "text.format.schema"),
    (MESSAGES, output_format, NESTED_SCHEMA, "output_config.format.schema"),
]


@pytest.mark.parametrize("strict", ["error", "warn"])
@pytest.mark.parametrize(("path", "body_of", "wrong", "place"), MISSHAPEN)
async def test_a_missing_key_is_named_rather_than_what_stands_in_its_place(
    engine: AsyncLLM,
    path: str,
    body_of: Callable[[dict[str, Any]], dict[str, Any]],
    wrong: dict[str, Any],
    place: str,
    strict: str,
) -> None:
    """The error shows an object that is taken."""
    async with in_process_client(ready_state(engine, strict_fields=strict)) as client:
        response = await client.post(path, json={**BASES[path], **body_of(wrong)})
        assert response.status_code == 400
        error = response.json()["error"]
        begin, correct, _ = error["message"].split("`")
        assert begin == f"{place}: is missing; correct usage: "
        assert error.get("param", place) == place  # Anthropic's errors have none
        response = await client.post(path, json={**BASES[path], **body_of(json.loads(correct))})
        assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (tool({"type": "web", "size": 1}), "tools[0].type: must be 'function', got 'web'"),
        (choice({"type": "web", "size": 1}), "tool_choice.type: must be 'function', got 'web'"),
    ],
)
async def test_keys_of_other_types_are_not_judged(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    response = await client.post(CHAT, json={**BASES[CHAT], **fields})
    assert message in response.json()["error"]["message"]


CALL = {"function": {"name": "f", "arguments": "{}"}}
NOTES = {"provider_specific_fields": {"refusal": None, "reasoning": "Hm."}}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "cXVpcmU="}
# What LiteLLM's message objects hold, without tools and with them.
LITELLM = [
    {
        **{"role": "assistant", "content": "x", "tool_calls": None, "function_call": None},
        **{"reasoning_content": "Hm.", "thinking_blocks": [THOUGHT], **NOTES},
    },
    {
        **{"role": "assistant", "content": None, "function_call": None, **NOTES},
        "tool_calls": [{**CALL, "id": "1", "type": "function", "index": 0}],
    },
]


@pytest.mark.parametrize("message", LITELLM)
async def test_a_message_of_litellm_can_be_sent_back(
    client: httpx.AsyncClient, message: dict[str, Any]
) -> None:
    response = await client.post(CHAT, json={**BASES[CHAT], "messages": [USER, message, USER]})
    assert response.status_code == 200, response.text


NOTED_CALL = {"function": {**CALL["function"], "parsed_arguments": {"a": 1}, **NOTES}, **NOTES}


async def prompt_of(engine: AsyncLLM, template: str, message: dict[str, Any]) -> str:
    """What a template of a request makes of one message."""
    template = "{% for m in messages %}" + template + "{% endfor %}"
    body = {"messages": [{"role": "assistant", **message}], "chat_template": template}
    state = ready_state(engine, trust_request_chat_template=True)
    async with in_process_client(state) as client:
        response = await client.post("/apply-template", json=body)
    assert response.status_code == 200, response.text
    return str(response.json()["prompt"])


async def test_what_clients_note_is_in_no_prompt(engine: AsyncLLM) -> None:
    plain, noted = {"tool_calls": [CALL]}, {"tool_calls": [NOTED_CALL], **NOTES}
    for template in ("{{ m.tool_calls|tojson }}", "{{ m|tojson }}"):
        prompt = await prompt_of(engine, template, plain)
        assert prompt == await prompt_of(engine, template, noted) and '"f"' in prompt


async def test_a_template_may_read_what_clients_note(engine: AsyncLLM) -> None:
    template = (
        "{{ m.provider_specific_fields.reasoning }}"
        "{{ m.tool_calls[0].provider_specific_fields.reasoning }}"
        "{{ m.tool_calls[0].function.parsed_arguments.a }}"
    )
    noted = {"tool_calls": [NOTED_CALL], **NOTES}
    assert await prompt_of(engine, template, noted) == "Hm.Hm.1"


@pytest.mark.parametrize(
    "noted",
    [
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}, THOUGHT]},
        {"reasoning_items": [{"id": "1", "summary": [{"type": "summary_text", "text": "Hm."}]}]},
        {"reasoning_content": "Hm.", "thinking_blocks": [{**THOUGHT, "thinking": "other"}]},
    ],
)
async def test_thoughts_that_are_only_notes_are_read(
    engine: AsyncLLM, noted: dict[str, Any]
) -> None:
    assert await prompt_of(engine, "{{ m.reasoning_content }}", noted) == "Hm."
