"""Constraints over HTTP: every name of them, their errors, and calls that must be made."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

from quire.engine.async_engine import AsyncLLM
from quire.structured_outputs.verify import GrammarVerifier
from tests.fakes.server import events_of, in_process_client, ready_state

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "Who?"}]
SCHEMA = {
    "type": "object",
    "properties": {"name": {"enum": ["Ada", "Alan"]}, "age": {"type": "integer", "maximum": 99,
                                                             "minimum": 0}},
    "required": ["name", "age"],
}  # fmt: skip
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
AS_JSON = [
    {"response_format": JSON_SCHEMA},
    {"structured_outputs": {"json": SCHEMA}},
    {"guided_json": SCHEMA},
    {"guided_json": json.dumps(SCHEMA), "guided_decoding_backend": "outlines"},
]
OTHERS = [
    ({"structured_outputs": {"choice": ["yes", "no"]}}, "yes|no"),
    ({"guided_choice": ["yes", "no"]}, "yes|no"),
    ({"guided_regex": "[a-c]{3}"}, "[a-c]{3}"),
    ({"guided_grammar": 'start: "x" | "y"'}, "x|y"),
    ({"structured_outputs": {"grammar": 'root ::= "x" | "y"'}}, "x|y"),
    ({"response_format": {"type": "json_object"}, "max_tokens": 1}, r"\{.*"),
]


def fields(path: str) -> dict[str, Any]:
    return {"messages": QUESTION} if path == CHAT else {"prompt": "Who?"}


async def answer(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> tuple[str, str]:
    response = await client.post(path, json={"max_tokens": 300, **fields(path), **body})
    assert response.status_code == 200, response.text
    assert "X-Quire-Ignored" not in response.headers
    choice = response.json()["choices"][0]
    return choice["message"]["content"] if path == CHAT else choice["text"], choice["finish_reason"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("body", AS_JSON, ids=[next(iter(one)) for one in AS_JSON])
async def test_every_name_of_a_schema(
    client: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    text, end = await answer(client, path, body)
    assert end == "stop"
    assert not list(Draft202012Validator(SCHEMA).iter_errors(json.loads(text)))


@pytest.mark.parametrize(("body", "pattern"), OTHERS)
async def test_every_name_of_other_constraints(
    client: httpx.AsyncClient, body: dict[str, Any], pattern: str
) -> None:
    text, _ = await answer(client, CHAT, body)
    assert re.fullmatch(pattern, text, re.DOTALL), text


async def test_a_stream_is_constrained_too(client: httpx.AsyncClient) -> None:
    body = {"messages": QUESTION, "stream": True, "response_format": JSON_SCHEMA}
    response = await client.post(CHAT, json=body)
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events]
    assert json.loads("".join(deltas)).keys() == {"name", "age"}


async def test_responses_and_messages_are_constrained(client: httpx.AsyncClient) -> None:
    form = {"type": "json_schema", "name": "x", "schema": SCHEMA}
    response = await client.post("/v1/responses", json={"input": "Who?", "text": {"format": form}})
    assert json.loads(response.json()["output"][0]["content"][0]["text"]).keys() == {"name", "age"}
    form.pop("name")
    for field in ({"output_config": {"format": form}}, {"output_format": form}):
        body = {"messages": QUESTION, "max_tokens": 300, **field}
        response = await client.post("/v1/messages", json=body)
        assert json.loads(response.json()["content"][0]["text"]).keys() == {"name", "age"}


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"guided_json": SCHEMA, "guided_regex": "a"}, "guided_json", "guided_json and guided_reg"),
        ({"response_format": JSON_SCHEMA, "guided_choice": ["a"]}, "guided_choice", "both constra"),
        ({"structured_outputs": {}}, "structured_outputs", "exactly one of"),
        ({"structured_outputs": {"jso": {}}}, "structured_outputs", "has no field 'jso'"),
        ({"guided_choice": []}, "guided_choice", "non-empty strings"),
        ({"guided_whitespace_pattern": " "}, "guided_whitespace_pattern", "needs guided_json"),
        ({"guided_json": SCHEMA, "guided_decoding_backend": "foo"}, "guided_decoding_backend",
         "guided_decoding_backend='foo': there is no backend 'foo'; it is one of"),
        ({"guided_json": SCHEMA, "guided_decoding_backend": "auto:x"}, "guided_decoding_backend",
         "there is no option of a backend 'x'"),
        ({"guided_decoding_backend": "nope"}, "guided_decoding_backend", "no backend 'nope'"),
        ({"structured_outputs": {"json": SCHEMA, "backend": "guidance:disable-any-whitespace"},
          "guided_decoding_backend": "xgrammar"}, "structured_outputs",
         "structured_outputs.backend and guided_decoding_backend are both given, keep one"),
        ({"structured_outputs": {"json": SCHEMA, "backend": "nope"}}, "structured_outputs",
         "there is no backend 'nope'"),
        ({"structured_outputs": {"json": SCHEMA, "whitespace_pattern": " "},
          "guided_whitespace_pattern": ""}, "structured_outputs", "are both given, keep one"),
        ({"guided_choice": [], "guided_decoding_backend": "auto"}, "guided_choice", "non-empty"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema.schema"),
        ({"response_format": {"type": "x"}}, "response_format", "must be one of text, json_object"),
        ({"guided_regex": "(a"}, "guided_regex", "guided_regex: the regex grammar cannot be used"),
        ({"guided_json": {"items": {"uniqueItems": True}}}, "guided_json",
         "the keyword 'uniqueItems' at #/items/uniqueItems cannot be honoured"),
        ({"guided_json": {"type": "integer", "minimum": 2, "maximum": 1}}, "guided_json", "Unsat"),
        ({"thinking_token_budget": 3}, "thinking_token_budget", "needs a reasoning parser"),
        ({"thinking_token_budget": 3}, "thinking_token_budget", "server with --reasoning-parser"),
    ],
)  # fmt: skip
async def test_what_cannot_be_followed_is_refused_by_name(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None, message: str
) -> None:
    for more in ({}, {"stream": True}):
        response = await client.post(CHAT, json={"messages": QUESTION, **body, **more})
        assert response.status_code == 400
        error = response.json()["error"]
        assert message in error["message"] and error["param"] == param


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    "form", [{"guided_json": SCHEMA}, {"response_format": JSON_SCHEMA}], ids=["guided", "format"]
)
async def test_options_of_a_backend_are_heeded(
    engine: AsyncLLM, client: httpx.AsyncClient, path: str, form: dict[str, Any]
) -> None:
    """The model writes as many spaces as it may."""
    bias = {str(only_token(engine.front.require_tokenizer(), " ")): 100}
    body = {**form, "logit_bias": bias, "max_tokens": 300}
    text, _ = await answer(client, path, {**body, "guided_decoding_backend": "xgrammar"})
    assert "  " in text
    backend = {"guided_decoding_backend": "xgrammar:disable-any-whitespace"}
    text, end = await answer(client, path, {**body, **backend})
    assert end == "stop"
    assert "  " not in text and "\n" not in text


async def test_what_takes_too_long_to_compile_ends_alone(
    engine: AsyncLLM, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [{"type": "string", "pattern": f".*{c}.*"} for c in "abcdefghijklmnopqrst"]
    monkeypatch.setattr(engine.front.inputs, "_verifier", GrammarVerifier(limit_s=0.5))
    response = await client.post(CHAT, json={"messages": QUESTION, "guided_json": {"allOf": parts}})
    assert response.status_code == 400
    assert "takes more than 0.5 s to compile" in response.json()["error"]["message"]
    text, _ = await answer(client, CHAT, {"guided_choice": ["fine"]})
    assert text == "fine"


async def test_more_new_grammars_than_can_be_tried_are_refused_for_now(
    engine: AsyncLLM, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.front.inputs, "_verifier", GrammarVerifier(max_waiting=0))
    response = await client.post(CHAT, json={"messages": QUESTION, "guided_choice": ["new one"]})
    assert response.status_code == 429 and response.headers["Retry-After"]
    assert "new grammars wait to be tried out already" in response.json()["error"]["message"]
    metrics = (await client.get("/metrics")).text
    assert 'quire:refused_total{reason="grammars_full"} 1.0' in metrics
    assert 'quire:refused_total{reason="queue_full"} 0.0' in metrics


async def test_a_thought_or_the_answer_and_nothing_else(engine: AsyncLLM) -> None:
    """The prompt does not say whether the model thinks first, and it must not run away."""
    state = ready_state(engine, reasoning_parser="tags:<think>,</think>")
    async with in_process_client(state) as client:
        for more in ({}, {"thinking_token_budget": 3}):
            body = {"messages": QUESTION, "guided_choice": ["yes", "no"], **more}
            for seed in range(4):
                response = await client.post(CHAT, json={**body, "seed": seed, "max_tokens": 60})
                choice = response.json()["choices"][0]
                begins = choice["message"].get("reasoning_content") is not None
                assert begins or choice["message"]["content"] in ("yes", "no"), choice
                assert begins or choice["finish_reason"] == "stop"


async def test_a_budget_where_no_parser_was_detected(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, reasoning_parser="auto")) as client:
        body = {"messages": QUESTION, "thinking_token_budget": 3}
        response = await client.post(CHAT, json=body)
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        "thinking_token_budget=3 needs a reasoning parser, which knows where thinking ends: "
        "--reasoning-parser auto has found none for this model; start the server with the name of "
        "one, or leave thinking_token_budget out."
    )


async def test_a_budget_of_a_prompt_that_is_no_conversation(engine: AsyncLLM) -> None:
    state = ready_state(engine, reasoning_parser="tags:<think>,</think>")
    body = {"prompt": "Why? <think>", "thinking_token_budget": 2, "max_tokens": 30}
    async with in_process_client(state) as client:
        response = await client.post(COMPLETIONS, json=body)
        assert "</think>" in response.json()["choices"][0]["text"]
        response = await client.post(COMPLETIONS, json={**body, "prompt": "Why? <think>x</think>"})
        assert "</think>" not in response.json()["choices"][0]["text"]


WHY = {"reasoning_parser": "tags:<why>,</why>"}


@pytest.mark.parametrize("content", ["<why>Let me", [{"type": "text", "text": "<why>Let me"}]])
async def test_an_open_thought_in_a_begun_answer_is_gone_on_with(
    engine: AsyncLLM, content: Any
) -> None:
    """Whether the answer has been begun by a string or by parts."""
    messages = [*QUESTION, {"role": "assistant", "content": content}]
    body = {"messages": messages, "continue_final_message": True, "thinking_token_budget": 4}
    async with in_process_client(ready_state(engine, **WHY)) as client:
        body |= {"guided_choice": ["yes", "no"], "max_tokens": 60}
        choice = (await client.post(CHAT, json=body)).json()["choices"][0]
    assert choice["message"]["reasoning"]
    assert choice["message"]["content"] in ("yes", "no") and choice["finish_reason"] == "stop"


@pytest.mark.parametrize("prompt", ["Why?\n<why>Let", "Why? <why>", "<why>a</why> b\n<why>\n c"])
@pytest.mark.parametrize("as_ids", [False, True])
async def test_an_open_thought_in_a_raw_prompt_ends_before_the_answer(
    engine: AsyncLLM, prompt: str, as_ids: bool
) -> None:
    tokenizer = engine.front.require_tokenizer()
    body = {
        "prompt": tokenizer.encode(prompt) if as_ids else prompt,
        "max_tokens": 60,
        "temperature": 0,
    }
    budget, grammar = {"thinking_token_budget": 3}, {"guided_choice": ["yes", "no"]}
    async with in_process_client(ready_state(engine, **WHY)) as client:
        for more in (budget, {**budget, **grammar}):
            response = await client.post(COMPLETIONS, json={**body, **more})
            thought, end, said = response.json()["choices"][0]["text"].partition("</why>")
            assert end and len(tokenizer.encode(thought)) <= 4
        assert said in ("yes", "no")
        biased = {**body, **grammar, "logit_bias": {str(only_token(tokenizer, "Q")): 100}}
        (choice,) = (await client.post(COMPLETIONS, json={**biased, "max_tokens": 5})).json()[
            "choices"
        ]
    assert choice["text"] == "QQQQQ"  # nothing is forbidden in a thought


def only_token(tokenizer: Any, text: str) -> int:
    (token_id,) = tokenizer.encode(text, add_special_tokens=False)
    return int(token_id)


@pytest.mark.parametrize(
    "prompt",
    [
        "Why?",
        "<why>a</why> So",
        "Begin with <why>.<|im_end|>\n<|im_start|>assistant\n",
        "<think>a",
    ],
)
@pytest.mark.parametrize("budget", [None, 0, 5])
async def test_other_raw_prompts_begin_no_thought(
    engine: AsyncLLM, prompt: str, budget: int | None
) -> None:
    first = only_token(engine.front.require_tokenizer(), "<")
    async with in_process_client(ready_state(engine, **WHY)) as client:
        body = {"prompt": prompt, "guided_choice": ["yes", "no"], "max_tokens": 30}
        body |= {"thinking_token_budget": budget, "logit_bias": {str(first): 100}}
        choice = (await client.post(COMPLETIONS, json=body)).json()["choices"][0]
    assert choice["text"] in ("yes", "no") and choice["finish_reason"] == "stop"


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


async def test_calls_that_must_be_made_are_made(engine: AsyncLLM) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    async with in_process_client(ready_state(engine)) as client:
        for choice in ("required", named):
            body = {"messages": QUESTION, "tools": [WEATHER], "tool_choice": choice, "seed": 1}
            response = await client.post(CHAT, json={**body, "max_tokens": 200})
            assert response.status_code == 200, response.text
            calls = response.json()["choices"][0]["message"]["tool_calls"]
            assert {call["function"]["name"] for call in calls} == {"get_weather"}
            for call in calls:
                assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")


@pytest.mark.parametrize(
    ("parser", "form"),
    [
        ("mistral", {"response_format": JSON_SCHEMA}),
        ("mistral", {"guided_json": SCHEMA}),
        ("hermes", {"guided_choice": ["a"]}),
        ("hermes", {"structured_outputs": {"regex": "a"}}),
    ],
)
async def test_a_form_leaves_no_room_for_calls_that_may_be_made(
    engine: AsyncLLM, parser: str, form: dict[str, Any]
) -> None:
    """Where no grammar says how calls are written, or the form is no schema."""
    body = {"messages": QUESTION, "tools": [WEATHER], **form}
    (name,) = form
    async with in_process_client(ready_state(engine, tool_call_parser=parser)) as client:
        response = await client.post(CHAT, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == name
        assert f"leave out {name} or tools" in response.json()["error"]["message"]
        for remedy in ("none", "required"):
            body |= {"tool_choice": remedy, "max_tokens": 2}
            assert (await client.post(CHAT, json=body)).status_code == 200


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("first", "form"),
    [
        *[(first, one) for one in AS_JSON for first in "<{"],
        ("<", {"response_format": {"type": "json_object"}}),
        ("<", {"structured_outputs": {"json_object": True}}),
        ("<", {"structured_outputs": {"json_object": True, "disable_additional_properties": True}}),
        ("{", {"structured_outputs": {"json": SCHEMA, "disable_any_whitespace": True}}),
        ("{", {"guided_json": SCHEMA, "guided_whitespace_pattern": ""}),
    ],
)
async def test_a_model_that_may_call_makes_calls_or_follows_the_schema(
    engine: AsyncLLM, client: httpx.AsyncClient, is_stream: bool, first: str, form: dict[str, Any]
) -> None:
    bias = {str(only_token(engine.front.require_tokenizer(), first)): 100}
    body = {"messages": QUESTION, "tools": [WEATHER], **form, "seed": 1}
    body |= {"logit_bias": bias, "parallel_tool_calls": False, "max_tokens": 300}
    response = await client.post(CHAT, json={**body, "stream": is_stream})
    assert response.status_code == 200, response.text
    answers = events_of(response.text)[:-1] if is_stream else [response.json()]
    choices = [one["choices"][0] for one in answers]
    parts = [one["delta" if is_stream else "message"] for one in choices]
    text = "".join(part.get("content") or "" for part in parts)
    calls = [call["function"] for part in parts for call in part.get("tool_calls") or ()]
    arguments = "".join(call["arguments"] for call in calls)
    if first == "<":
        assert (text, calls[0]["name"]) == ("", "get_weather")
        assert json.loads(arguments)["city"] in ("Paris", "Rome")
        assert choices[-1]["finish_reason"] == "tool_calls"
    else:
        assert not calls and json.loads(text).keys() == {"name", "age"}
        assert choices[-1]["finish_reason"] == "stop"
        assert "whitespace" not in str(form) or re.search(r"\s", text) is None


async def test_an_open_object_beside_calls_stays_open(
    engine: AsyncLLM, client: httpx.AsyncClient
) -> None:
    form = {"json_object": True, "disable_additional_properties": True}
    bias = {str(only_token(engine.front.require_tokenizer(), "}")): -100}
    body = {"messages": QUESTION, "tools": [WEATHER], "structured_outputs": form, "max_tokens": 9}
    bias |= {str(only_token(engine.front.require_tokenizer(), "{")): 100}
    choice = (await client.post(CHAT, json={**body, "logit_bias": bias})).json()["choices"][0]
    assert choice["finish_reason"] == "length", choice


async def test_responses_may_have_any_name_of_a_schema_beside_tools(
    client: httpx.AsyncClient,
) -> None:
    tool = {"type": "function", **WEATHER["function"]}
    body = {"input": "Who?", "tools": [tool], "structured_outputs": {"json": SCHEMA}, "seed": 1}
    for choice in ("auto", "required", {"type": "function", "name": "get_weather"}):
        body |= {"tool_choice": choice, "max_output_tokens": 300}
        response = await client.post("/v1/responses", json=body)
        assert response.status_code == 200, response.text
        kinds = {one["type"] for one in response.json()["output"]}
        assert kinds == {"function_call"} if choice != "auto" else len(kinds) == 1


@pytest.mark.parametrize("form", [*AS_JSON, *(form for form, _ in OTHERS)])
async def test_where_calls_must_be_made_the_form_is_that_of_a_later_turn(
    client: httpx.AsyncClient, form: dict[str, Any]
) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", named):
        body = {"messages": QUESTION, "tools": [WEATHER], "tool_choice": choice, "seed": 1}
        body |= {**form, "max_tokens": 200}
        message = (await client.post(CHAT, json=body)).json()["choices"][0]["message"]
        assert message["content"] == ""
        assert {one["function"]["name"] for one in message["tool_calls"]} == {"get_weather"}


@pytest.mark.parametrize(
    ("tool", "schema", "param", "place"),
    [
        (True, False, "tools", "at tools[1].function.parameters/properties/a/uniqueItems cannot"),
        (False, True, "response_format", "at #/properties/a/uniqueItems cannot be honoured"),
        (False, True, "guided_json", "at #/properties/a/uniqueItems cannot be honoured"),
    ],
)
async def test_what_is_wrong_in_either_schema_is_told_where_it_is(
    client: httpx.AsyncClient, tool: bool, schema: bool, param: str, place: str
) -> None:
    second = {"name": "g", "parameters": NO_SUCH if tool else FINE}
    form = NO_SUCH if schema else FINE
    body = {"messages": QUESTION, "tools": [WEATHER, {"type": "function", "function": second}]}
    as_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": form}}
    body |= {"guided_json": form} if param == "guided_json" else {"response_format": as_format}
    error = (await client.post(CHAT, json=body)).json()["error"]
    assert place in error["message"] and error["param"] == param


@pytest.mark.parametrize("parser", ["qwen3", "deepseek_r1"])
@pytest.mark.parametrize(
    "no_thought",
    [
        {"reasoning_effort": "none"},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"thinking": False}},
        {"thinking_token_budget": 0},
    ],
)
async def test_who_wants_no_thought_gets_the_answer_at_once(
    engine: AsyncLLM, parser: str, no_thought: dict[str, Any]
) -> None:
    """Also where the chat template heeds no such word."""
    state = ready_state(engine, reasoning_parser=parser)
    async with in_process_client(state) as client:
        first = only_token(engine.front.require_tokenizer(), "<")  # of a tag that begins a thought
        body = {"guided_regex": "%[a-z]{3}", "logit_bias": {str(first): 100}}
        text, end = await answer(client, CHAT, {**body, **no_thought})
    assert re.fullmatch("%[a-z]{3}", text) and end == "stop"


NO_SUCH = {"type": "object", "properties": {"a": {"uniqueItems": True}}}
FINE: dict[str, Any] = {"type": "object", "properties": {}}
FORCED = [
    (
        CHAT,
        [{"type": "function", "function": {"name": "g", "parameters": NO_SUCH}}],
        {"type": "function", "function": {"name": "g"}},
        "function.parameters",
    ),
    (
        "/v1/responses",
        [{"type": "function", "name": "g", "parameters": NO_SUCH}],
        {"type": "function", "name": "g"},
        "parameters",
    ),
    (
        "/v1/messages",
        [{"name": "g", "input_schema": NO_SUCH}],
        {"type": "tool", "name": "g"},
        "input_schema",
    ),
]


@pytest.mark.parametrize("has_parser", [True, False])
@pytest.mark.parametrize(("path", "tools", "named", "part"), FORCED)
async def test_a_schema_of_a_tool_is_named_as_the_request_has_it(
    engine: AsyncLLM, has_parser: bool, path: str, tools: Any, named: Any, part: str
) -> None:
    """Whatever the grammar of the calls is made of."""
    fine = json.loads(json.dumps(tools).replace(json.dumps(NO_SUCH), json.dumps(FINE)))
    fine = json.loads(json.dumps(fine).replace('"g"', '"f"'))
    body = {"input": "Who?", "tools": [*fine, *tools]}
    if path != "/v1/responses":
        body = {"messages": QUESTION, "max_tokens": 9, "tools": [*fine, *tools]}
    any_tool = {"type": "any"} if path == "/v1/messages" else "required"
    place = f"at tools[1].{part}/properties/a/uniqueItems cannot be honoured"
    state = ready_state(engine, enable_auto_tool_choice=has_parser)
    async with in_process_client(state) as client:
        for choice in (named, any_tool):
            response = await client.post(path, json={**body, "tool_choice": choice})
            assert response.status_code == 400
            assert place in response.json()["error"]["message"]


async def test_a_reference_of_a_tool_that_leads_nowhere_is_named_by_its_tool(
    engine: AsyncLLM,
) -> None:
    nowhere = {"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}
    tools = [
        {"type": "function", "function": {"name": name, "parameters": schema}}
        for name, schema in (("f", FINE), ("g", nowhere))
    ]
    body = {"messages": QUESTION, "max_tokens": 9, "tools": tools, "tool_choice": "required"}
    async with in_process_client(ready_state(engine, tool_call_parser="llama3_json")) as client:
        response = await client.post(CHAT, json=body)
    assert response.status_code == 400
    assert "tools[1].function.parameters: Pointer" in response.json()["error"]["message"]


async def test_an_own_structural_tag_keeps_its_places(client: httpx.AsyncClient) -> None:
    content = {"type": "json_schema", "json_schema": NO_SUCH}
    form = {"type": "structural_tag", "format": content}
    response = await client.post(CHAT, json={"messages": QUESTION, "response_format": form})
    place = "structural_tag.format.json_schema/properties/a/uniqueItems"
    assert place in response.json()["error"]["message"]
