"""Which fields are heeded, ignored, or refused by name."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.sampling_limits import NOT_BUILT
from quire.sampling_params import SamplingParams
from quire.server.errors import HTTPError
from quire.server.fields import HARMLESS, IGNORED_HEADER, REFUSED, judge
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.completions import CompletionRequest
from tests.fakes.server import in_process_client, ready_state


def body_with(**fields: Any) -> CompletionRequest:
    return CompletionRequest.model_validate({"prompt": "x", **fields})


@pytest.mark.parametrize("strict", ["error", "warn", "off"])
def test_harmless_fields_are_taken_silently(strict: str) -> None:
    body = body_with(user="me", metadata={"a": 1}, store=True, service_tier="auto")
    assert judge(body, strict) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"store": "maybe"}, "true or false, got 'maybe'"),
        ({"store": 1}, "true or false, got 1"),
        ({"metadata": [1, 2]}, "an object, got [1, 2]"),
        ({"service_tier": 5}, "a string, got 5"),
        ({"user": {}}, "a string, got {}"),
        ({"prediction": 5}, "an object, got 5"),
        ({"session_id": True}, "a string, got True"),
    ],
)
@pytest.mark.parametrize("strict", ["error", "off"])
def test_harmless_fields_have_types_too(fields: dict[str, Any], words: str, strict: str) -> None:
    (name,) = fields
    with pytest.raises(HTTPError) as caught:
        judge(body_with(**fields), strict)
    assert caught.value.message == f"{name}: must be {words}"
    assert (caught.value.status, caught.value.param) == (400, name)


def test_harmless_fields_may_say_nothing() -> None:
    assert judge(body_with(**dict.fromkeys(HARMLESS)), "error") == []
    assert judge(body_with(metadata={"user_id": 5}, prediction=[]), "error") == []


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_built_is_refused_by_name_but_only_when_it_is_set(name: str) -> None:
    neutral, _ = REFUSED[name]
    asks_when_empty = name in ("web_search_options", "thread")
    empty = () if asks_when_empty else ([], {})
    for value in (None, *empty, *neutral):
        assert judge(body_with(**{name: value}), "error") == []
    for strict in ("error", "off"):
        with pytest.raises(HTTPError, match=f"^{name} is not supported, got 'abc'") as caught:
            judge(body_with(**{name: "abc"}), strict)
        assert (caught.value.status, caught.value.param) == (400, name)


@pytest.mark.parametrize("name", sorted(REFUSED.keys() & NOT_BUILT.keys()))
def test_a_sampling_parameter_is_refused_for_the_same_reason_as_in_python(name: str) -> None:
    value = [1]
    with pytest.raises(ValueError, match=f"^{name} is not supported yet") as in_python:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    with pytest.raises(HTTPError) as served:
        judge(body_with(**{name: value}), "error")
    (reason,) = re.findall(r"got \[1\]: (.*)\.$", served.value.message)
    assert reason in str(in_python.value)


def test_an_unknown_field_is_an_error_that_suggests_the_right_name() -> None:
    with pytest.raises(HTTPError, match=r"unknown field 'temprature'; did you mean temperature\?"):
        judge(body_with(temprature=1), "error")
    with pytest.raises(HTTPError, match="unknown field 'zzz' "):
        judge(body_with(zzz=1), "error")


@pytest.mark.parametrize("value", [None, [], {}])
def test_a_field_without_a_value_asks_for_nothing(value: Any) -> None:
    assert judge(body_with(zzz=value), "error") == []


def test_no_more_fields_are_looked_at_than_are_told() -> None:
    asked = []

    def template() -> str:
        asked.append(None)
        return ""

    kwargs = {f"a{i}": 1 for i in range(100)}
    chat = {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": kwargs}
    body = ChatCompletionRequest.model_validate(chat)
    with pytest.raises(HTTPError, match=r"kwargs\.a9' \(to ignore"):
        judge(body, "error", template)
    assert len(asked) == 10
    assert judge(body, "warn", template) == [f"chat_template_kwargs.{name}" for name in kwargs]


async def test_the_template_is_made_once_for_all_fields(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ready_state(engine, strict_fields="warn")
    assert state.chat is not None
    make, made, numbers = state.chat.template, [], []

    def noting(options: Any) -> str:
        made.append(options)
        return make(options)

    monkeypatch.setattr(state.chat, "template", noting)
    async with in_process_client(state) as client:
        for num_kwargs in (1, 100):
            made.clear()
            kwargs = {f"a{i}": 1 for i in range(num_kwargs)}
            body = {**BASES[CHAT], "chat_template_kwargs": kwargs}
            assert (await client.post("/apply-template", json=body)).status_code == 200
            numbers.append(len(made))
    assert numbers[0] == numbers[1]


@pytest.mark.parametrize(("strict", "header"), [("warn", "zzz,%C3%A9%2C%20x"), ("off", None)])
async def test_unknown_fields_can_be_ignored(
    engine: AsyncLLM, strict: str, header: str | None
) -> None:
    async with in_process_client(ready_state(engine, strict_fields=strict)) as client:
        response = await client.post(
            "/v1/completions", json={"prompt": "x", "max_tokens": 1, "zzz": 1, "é, x": 2}
        )
    assert response.status_code == 200
    assert response.headers.get(IGNORED_HEADER) == header


USER = {"role": "user", "content": "x"}
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


def saying(**message: Any) -> dict[str, Any]:
    return {"messages": [{**USER, **message}]}


def calling(**call: Any) -> dict[str, Any]:
    whole = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}, **call}
    return {"messages": [{"role": "assistant", "tool_calls": [whole]}, USER]}


def block(**content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", **content}]}]}


CALL = {"function": {"name": "f", "arguments": "{}"}}
SCHEMA = {"name": "x", "schema": {"type": "object"}}
TOOL = {"type": "function", "function": {"name": "f"}}


def answering(form: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": form}


def offering(**tool: Any) -> dict[str, Any]:
    return {"tools": [{**TOOL, **tool}]}


NESTED = [
    (
        CHAT,
        {"stream": True, "stream_options": {"include_usages": 1}},
        "stream_options.include_usages",
    ),
    (CHAT, saying(contents="y"), "messages[0].contents"),
    (CHAT, saying(prefix=True), "messages[0].prefix"),
    (CHAT, block(weight=3), "messages[0].content[0].weight"),
    (CHAT, calling(zzz=1), "messages[0].tool_calls[0].zzz"),
    (
        CHAT,
        calling(function={"name": "f", "arguments": "{}", "zzz": 1}),
        "messages[0].tool_calls[0].function.zzz",
    ),
    (CHAT, answering({"type": "text", "json_schema": SCHEMA}), "response_format.json_schema"),
    (
        CHAT,
        answering({"type": "json_object", "json_schema": SCHEMA}),
        "response_format.json_schema",
    ),
    (
        CHAT,
        answering({"type": "json_schema", "json_schema": SCHEMA, "strict": True}),
        "response_format.strict",
    ),
    (
        CHAT,
        answering({"type": "json_schema", "json_schema": {**SCHEMA, "stric": True}}),
        "response_format.json_schema.stric",
    ),
    ("/v1/completions", answering({"type": "text", "zzz": 1}), "response_format.zzz"),
    (CHAT, offering(zzz=1), "tools[0].zzz"),
    (
        CHAT,
        offering(function={"name": "f", "paramters": {"type": "object"}}),
        "tools[0].function.paramters",
    ),
    ("/tokenize", {**saying(), **offering(zzz=1)}, "tools[0].zzz"),
    (CHAT, {"tool_choice": {**TOOL, "zzz": 1}, **offering()}, "tool_choice.zzz"),
    (
        CHAT,
        {"tool_choice": {"type": "function", "function": {"name": "f", "zzz": 1}}, **offering()},
        "tool_choice.function.zzz",
    ),
    (
        RESPONSES,
        {"text": {"format": {"type": "json_object", "name": "x"}}},
        "text.format.name",
    ),
    ("/tokenize", saying(zzz=1), "messages[0].zzz"),
    ("/apply-template", saying(zzz=1), "messages[0].zzz"),
    ("/v1/completions", {"stream_options": {"zzz": 1}}, "stream_options.zzz"),
    (RESPONSES, {"reasoning": {"efort": "low"}}, "reasoning.efort"),
    (RESPONSES, {"text": {"zzz": 1}}, "text.zzz"),
    (RESPONSES, {"text": {"format": {"type": "text", "zzz": 1}}}, "text.format.zzz"),
    (RESPONSES, {"input": [{**USER, "zzz": 1}]}, "input[0].zzz"),
    (
        RESPONSES,
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "x", "zzz": 1}]}]},
        "input[0].content[0].zzz",
    ),
    (RESPONSES, {"input": [{"type": "reasoning", "summary": [], "zzz": 1}, USER]}, "input[0].zzz"),
    (RESPONSES, {"tools": [{"type": "function", "name": "f", "defer": True}]}, "tools[0].defer"),
    (RESPONSES, {"stream_options": {"include_usage": True}}, "stream_options.include_usage"),
    (RESPONSES + "/input_tokens", {"input": [{**USER, "zzz": 1}]}, "input[0].zzz"),
    (MESSAGES, {"thinking": {"type": "disabled", "zzz": 1}}, "thinking.zzz"),
    (MESSAGES, {"output_config": {"zzz": 1}}, "output_config.zzz"),
    (MESSAGES, {"output_format": {"type": "text", "zzz": 1}}, "output_format.zzz"),
    (MESSAGES, saying(zzz=1), "messages[0].zzz"),
    (MESSAGES, block(zzz=1), "messages[0].content[0].zzz"),
    (MESSAGES, {"system": [{"type": "text", "text": "x", "zzz": 1}]}, "system[0].zzz"),
    (MESSAGES, {"tools": [{"name": "f", "input_schema": {}, "zzz": 1}]}, "tools[0].zzz"),
    (MESSAGES, {"tool_choice": {"type": "none", "zzz": 1}}, "tool_choice.zzz"),
    (MESSAGES + "/count_tokens", saying(zzz=1), "messages[0].zzz"),
]
BASES: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [USER], "max_tokens": 1},
    "/v1/completions": {"prompt": "x", "max_tokens": 1, "stream": True},
    RESPONSES: {"input": "x", "max_output_tokens": 1},
    MESSAGES: {"messages": [USER], "max_tokens": 1},
}


@pytest.mark.parametrize(("path", "fields", "place"), NESTED)
async def test_unknown_fields_are_refused_at_every_depth(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], place: str
) -> None:
    response = await client.post(path, json={**BASES.get(path, {}), **fields})
    assert response.status_code == 400
    assert f"unknown field '{place}'" in response.json()["error"]["message"]
    if "messages" not in path:
        assert response.json()["error"]["param"] == place


@pytest.mark.parametrize(
    ("path", "fields", "place"),
    [
        (CHAT, answering({"type": "json_object", "schema": {"type": "object"}}), "response_format"),
        (
            RESPONSES,
            {"text": {"format": {"type": "json_object", "schema": {"type": "object"}}}},
            "text.format",
        ),
        (
            MESSAGES,
            {"output_config": {"format": {"type": "json_object", "schema": {"type": "object"}}}},
            "output_config.format",
        ),
    ],
)
async def test_a_schema_that_would_not_be_followed_is_refused(
    engine: AsyncLLM, path: str, fields: dict[str, Any], place: str
) -> None:
    async with in_process_client(ready_state(engine, strict_fields="off")) as client:
        response = await client.post(path, json={**BASES[path], **fields})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == (
        f"{place}.schema is not supported: json_object has no schema; use the type json_schema."
    )


async def test_and_can_be_ignored_at_every_depth(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, strict_fields="warn")) as client:
        for path, fields, place in NESTED:
            if "tools" in fields or "output_config" in fields:
                continue  # which is refused for another reason
            response = await client.post(path, json={**BASES.get(path, {}), **fields})
            assert response.status_code == 200, (place, response.text)
            assert response.headers[IGNORED_HEADER] == place


@pytest.mark.parametrize("strict", ["error", "warn", "off"])
@pytest.mark.parametrize(
    ("path", "name", "value"),
    [
        (RESPONSES, "guided_choice", ["a"]),
        (RESPONSES, "guided_json", {"type": "object"}),
        (RESPONSES, "guided_json", {}),  # any JSON
        (RESPONSES, "response_format", {"type": "json_object"}),
        (MESSAGES, "guided_regex", "a"),
        (MESSAGES, "structured_outputs", {"choice": ["a"]}),
        (MESSAGES, "text", {"format": {"type": "json_object"}}),
        (CHAT, "text", {"format": {"type": "json_object"}}),
        (CHAT, "output_config", {"format": {"type": "json_schema", "schema": {}}}),
        (CHAT, "output_format", {"type": "json_schema", "schema": {}}),
        (RESPONSES, "output_config", {"format": {"type": "json_schema", "schema": {}}}),
    ],
)
async def test_a_constraint_is_never_dropped(
    engine: AsyncLLM, path: str, name: str, value: Any, strict: str
) -> None:
    async with in_process_client(ready_state(engine, strict_fields=strict)) as client:
        response = await client.post(path, json={**BASES[path], name: value})
        neutral = await client.post(path, json={**BASES[path], name: None})
    message = response.json()["error"]["message"]
    instead = {
        CHAT: "response_format or structured_outputs",
        RESPONSES: "text.format or structured_outputs",
        MESSAGES: "output_config.format",
    }[path]
    assert (response.status_code, neutral.status_code) == (400, 200)
    assert message == f"{name} is not supported here: use {instead}."


def test_a_text_that_is_meant_as_the_prompt_is_an_unknown_field() -> None:
    assert judge(body_with(text="Hello"), "warn") == ["text"]


async def test_a_message_may_have_what_its_template_reads(
    client: httpx.AsyncClient, engine: AsyncLLM
) -> None:
    template = "{% for m in messages %}{{ m.content }}{{ m.mood }}{% endfor %}"
    body = {**saying(mood="gay"), "chat_template": template}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as trusting:
        answer = await trusting.post("/apply-template", json=body)
    assert answer.json() == {"prompt": "xgay"}
    refused = await client.post("/apply-template", json=saying(mood="gay"))
    assert refused.status_code == 400


@pytest.mark.parametrize("kind", ["text", "message"])
async def test_the_type_of_a_message_says_nothing(client: httpx.AsyncClient, kind: str) -> None:
    prompts = [
        (await client.post("/apply-template", json=body)).json()["prompt"]
        for body in (saying(), saying(type=kind))
    ]
    assert prompts[0] == prompts[1]


async def test_an_answer_can_be_sent_back_as_it_came(client: httpx.AsyncClient) -> None:
    body = {**BASES[CHAT], "logprobs": True}
    (choice,) = (await client.post(CHAT, json=body)).json()["choices"]
    again = {**body, "messages": [USER, choice["message"], USER]}
    assert (await client.post(CHAT, json=again)).status_code == 200
    answer = (await client.post(RESPONSES, json=BASES[RESPONSES])).json()
    items = [{"role": "user", "content": "x"}, *answer["output"], {"role": "user", "content": "y"}]
    again = {**BASES[RESPONSES], "input": items}
    assert (await client.post(RESPONSES, json=again)).status_code == 200
    answer = (await client.post(MESSAGES, json=BASES[MESSAGES])).json()
    turn = {"role": "assistant", "content": answer["content"]}
    again = {**BASES[MESSAGES], "messages": [USER, turn, USER]}
    assert (await client.post(MESSAGES, json=again)).status_code == 200


@pytest.mark.parametrize("name", ["audio", "refusal", "function_call"])
async def test_parts_of_a_message_that_are_not_read_are_refused(
    client: httpx.AsyncClient, name: str
) -> None:
    response = await client.post(CHAT, json=saying(**{name: {"id": "1"}}))
    assert f"messages[0].{name} is not supported" in response.json()["error"]["message"]
    for empty in (None, ""):
        response = await client.post("/apply-template", json=saying(**{name: empty}))
        assert response.status_code == 200


NAMED = {"type": "function", "function": {"name": "look_up", "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tool_choice": "auto"}, "`tools` must be set"),
        ({"tool_choice": "maybe"}, "Invalid value for `tool_choice`"),
        ({"tools": [{"type": "function"}]}, "tools[0].function.name: a tool needs a name"),
        ({"tools": [NAMED], "tool_choice": {}}, "Expected field `name` in `function`"),
        (
            {"tools": [NAMED], "tool_choice": {"type": "foo", "function": {"name": "look_up"}}},
            "tool_choice.type: must be 'function', got 'foo'",
        ),
        (
            {"tools": [NAMED], "tool_choice": {"type": "function", "function": {"name": "f"}}},
            "does not match any of the specified `tools`: there is no 'f'",
        ),
        ({"tools": [{"type": "web"}]}, "tools[0].type: must be 'function', got 'web'"),
        ({"tools": [{"function": {"name": "f", "parameters": 3}}]}, "must be a JSON schema"),
        ({"tool_choice": 3}, "tool_choice: must be 'none', 'auto'"),
        ({"web_search_options": {}}, "web_search_options is not supported"),
        ({"documents": [{"text": "x"}]}, "documents have no effect"),
        ({"chat_template_kwargs": {"zzz": 1}}, "unknown field 'chat_template_kwargs.zzz'"),
        (
            block(type="image_url", image_url={"url": "x"}),
            "parts of type 'image_url' are not supported",
        ),
        ({"messages": [USER] * 3000}, "the prompt is too long: it has at least 3000 tokens"),
        (
            {"tools": [NAMED, NAMED]},
            "tools[1].function.name: there is already a tool 'look_up'",
        ),
        (
            {"tools": [NAMED], "tool_choice": {"type": "allowed_tools", "allowed_tools": {}}},
            "'allowed_tools' is not supported",
        ),
    ],
)
async def test_tools_that_cannot_be_called_are_refused(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], **fields}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize("path", [CHAT, "/tokenize", "/apply-template"])
@pytest.mark.parametrize(
    ("calls", "place"),
    [
        ("x", "messages[0].tool_calls"),
        (5, "messages[0].tool_calls"),
        ({"a": 1}, "messages[0].tool_calls"),
        ([None], "messages[0].tool_calls[0]"),
        ([[]], "messages[0].tool_calls[0]"),
        ([{"id": "a", "type": "function"}], "messages[0].tool_calls[0]"),
        ([{"function": {"name": 3}}], "messages[0].tool_calls[0]"),
        ([CALL, {"function": {"name": "f", "arguments": [1]}}], "messages[0].tool_calls[1]"),
    ],
)
async def test_calls_of_earlier_turns_have_a_form(
    client: httpx.AsyncClient, path: str, calls: Any, place: str
) -> None:
    body = {"messages": [{"role": "assistant", "tool_calls": calls}, USER]}
    response = await client.post(path, json=body)
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == place and error["message"].startswith(f"{place}: must be")


async def test_what_clients_set_for_any_model_is_harmless(client: httpx.AsyncClient) -> None:
    kwargs = {"enable_thinking": False}
    body = {**saying(), "max_tokens": 1, "chat_template_kwargs": kwargs, "documents": []}
    assert (await client.post(CHAT, json=body)).status_code == 200


async def test_tools_that_may_not_be_called_are_in_the_prompt(client: httpx.AsyncClient) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {}}}
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [tool],
        "tool_choice": "none",
    }
    response = await client.post("/apply-template", json=body)
    assert "look_up" in response.json()["prompt"]


@pytest.mark.parametrize(
    ("name", "is_read"),
    [("mood", True), ("moo", False), ("my-mood", True), ("my", True), ("-", False), ("", False)],
)
async def test_a_template_reads_whole_names(engine: AsyncLLM, name: str, is_read: bool) -> None:
    template = "{% for m in messages %}{{ m.content }}{{ m.mood }}{{ m['my-mood'] }}{% endfor %}"
    body = {**saying(**{name: "gay"}), "chat_template": template}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as trusting:
        answer = await trusting.post("/apply-template", json=body)
    assert answer.status_code == (200 if is_read else 400)


async def test_what_is_not_built_is_named_before_what_is_missing(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/completions", json={"prompt_embeds": "x"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "prompt_embeds"
    assert "pass text or token ids" in error["message"]


PARSED = {"name": "f", "arguments": "{}", "parsed_arguments": {"a": 1}}
CLIENTS_OWN = [
    (CHAT, calling(function=PARSED)),
    (CHAT, {"messages": [{"role": "assistant", "content": "{}", "parsed": {"a": 1}}, USER]}),
    (
        RESPONSES,
        {
            "input": [
                {"type": "function_call", "call_id": "1", **PARSED},
                {"type": "function_call_output", "call_id": "1", "output": "x"},
            ]
        },
    ),
    (RESPONSES, {"client_metadata": {"x-codex-installation-id": "1"}}),
    (MESSAGES, {"container": None, "mcp_servers": [], "context_management": None}),
    (MESSAGES, {"context_management": {"edits": []}}),
    (
        MESSAGES,
        {"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}},
    ),
    (
        MESSAGES,
        {
            "tools": [
                {
                    "name": "f",
                    "input_schema": {"type": "object"},
                    "eager_input_streaming": True,
                    "allowed_callers": ["direct"],
                    "defer_loading": False,
                    "input_examples": [],
                }
            ]
        },
    ),
    (
        RESPONSES,
        {"tools": [{"type": "function", "name": "f", "parameters": {}, "defer_loading": False}]},
    ),
]


def anthropic_tool(**more: Any) -> dict[str, Any]:
    return {"tools": [{"name": "f", "input_schema": {"type": "object"}, **more}]}


def namespace(*tools: Any) -> dict[str, Any]:
    return {"tools": [{"type": "namespace", "name": "crm", "description": "", "tools": [*tools]}]}


LATER = {"type": "function", "name": "f", "defer_loading": True}
CUSTOM = {"type": "custom", "name": "f"}


@pytest.mark.parametrize(("path", "fields"), CLIENTS_OWN)
async def test_what_official_clients_add_by_themselves_is_taken(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any]
) -> None:
    response = await client.post(path, json={**BASES[path], **fields})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("path", "fields", "message"),
    [
        (MESSAGES, {"thread": {"type": "continue"}}, "thread"),
        (MESSAGES, anthropic_tool(defer_loading=True), "tools[0].defer_loading is not supported"),
        (MESSAGES, anthropic_tool(input_examples=[{}]), "write the examples into the description"),
        (RESPONSES, {"tools": [LATER]}, "tools[0].defer_loading is not supported"),
        (RESPONSES, namespace(LATER), "tools[0].tools[0].defer_loading is not supported"),
        (RESPONSES, {"tools": [CUSTOM]}, "tools[0]: tools of the type 'custom' are not supported"),
        (RESPONSES, namespace(CUSTOM), "tools[0].tools[0]: tools of the type 'custom'"),
        (RESPONSES, {"tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "allowed_tools"),
        (CHAT, {"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "custom"),
    ],
)
async def test_what_they_may_ask_for_and_is_not_served_is_refused_by_name(
    client: httpx.AsyncClient, path: str, fields: dict[str, Any], message: str
) -> None:
    response = await client.post(path, json={**BASES[path], **fields})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert "unknown field" not in response.json()["error"]["message"]


@pytest.mark.parametrize("thread", [{}, {"type": "create"}, {"type": "continue"}])
@pytest.mark.parametrize("path", [MESSAGES, MESSAGES + "/count_tokens"])
async def test_a_thread_is_refused_so_that_the_client_sends_all_of_it(
    client: httpx.AsyncClient, path: str, thread: dict[str, Any]
) -> None:
    body = {"messages": [USER], "thread": thread}
    response = await client.post(path, json=body if path != MESSAGES else {**body, "max_tokens": 1})
    assert response.status_code == 400
    details = response.json()["error"]["details"]
    assert details == {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
