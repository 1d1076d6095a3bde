"""``/v1/chat/completions`` on the bundled model."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from quire.chat_templates import named_chat_template
from quire.engine.async_engine import AsyncLLM
from quire.outputs import CompletionOutput, RequestOutput
from quire.prompts import ParsedPrompt
from quire.sampling_params import SamplingParams
from quire.server.answer_form import AnswerForm
from quire.server.chat_prompt import warn_of_templates
from quire.server.chat_stream import ChatStream
from quire.server.chat_view import ChatView
from quire.server.envelope import Envelope
from quire.server.generation import Generation, Wanted
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.state import ServerState
from quire.server.usage import StreamUsage, Usage
from tests.fakes.server import events_of, in_process_client, ready_state

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ANSWER = "The capital of France is Paris."
PATH = "/v1/chat/completions"


async def chat(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.post(PATH, json={"messages": QUESTION, "temperature": 0, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def stream(client: httpx.AsyncClient, **body: Any) -> list[Any]:
    whole = {"messages": QUESTION, "temperature": 0, "stream": True, **body}
    response = await client.post(PATH, json=whole)
    assert response.status_code == 200, response.text
    return events_of(response.text)


async def test_the_whole_answer(client: httpx.AsyncClient) -> None:
    answer = await chat(client)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == ANSWER
    assert "tool_calls" not in choice["message"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)


async def test_a_stream_begins_with_roles_and_ends_with_usage(client: httpx.AsyncClient) -> None:
    events = await stream(client, n=2, stream_options={"include_usage": True})
    assert events.pop() == "[DONE]"
    usage = events.pop()
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], 20)
    choices = [event["choices"][0] for event in events]
    role = {"role": "assistant", "content": ""}
    for index in (0, 1):
        own = [choice for choice in choices if choice["index"] == index]
        assert own[0]["delta"] == role
        assert "".join(choice["delta"]["content"] for choice in own) == ANSWER
        assert [choice["delta"].get("role") for choice in own[1:]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == "stop"
        assert own[-1]["stop_reason"] is None
    assert len({event["id"] for event in events} | {usage["id"]}) == 1


class TwoWords:
    """A generation whose two outputs do not become one, however busy the machine is."""

    def __init__(self) -> None:
        self.usage = Usage(prompt_tokens=3)
        self.wanted = Wanted(prompts=[ParsedPrompt(text="x")], params=SamplingParams(seed=1))

    async def outputs(self) -> AsyncGenerator[tuple[int, RequestOutput], None]:
        for text, reason in (("The", None), (" capital", "length")):
            one = CompletionOutput(0, text, [5], None, None, finish_reason=reason)
            yield 0, RequestOutput("r", None, None, None, [one], finished=reason is not None)


async def test_a_stream_byte_for_byte(state: ServerState) -> None:
    body = ChatCompletionRequest.model_validate({"messages": QUESTION, "stream": True})
    envelope = Envelope(id="i", model="m", fingerprint="quire-1")
    generation = cast(Generation, TwoWords())
    usage = StreamUsage(at_end=False, on_every_chunk=False)
    view = ChatView(state, body, AnswerForm(), generation.usage)
    stream = ChatStream(generation, envelope, view, usage)
    events = b"".join([data async for data in stream.run()]).decode().split("\n\n")
    parts = [one.partition('"choices":')[2] for one in events]
    role = '{"role":"assistant","content":""}'
    assert parts[:3] == [
        f'[{{"index":0,"delta":{role},"logprobs":null,"finish_reason":null}}]'
        ',"prompt_token_ids":null,"prompt_text":null}',
        '[{"index":0,"delta":{"content":"The"},"logprobs":null,"finish_reason":null}]}',
        '[{"index":0,"delta":{"content":" capital"},"logprobs":null,"finish_reason":"length",'
        '"stop_reason":null}],"system_fingerprint":"quire-1"}',
    ]
    assert events[3:] == ["data: [DONE]", ""]


async def test_log_probabilities_whole_and_streamed(client: httpx.AsyncClient) -> None:
    wish = {"logprobs": True, "top_logprobs": 2, "max_tokens": 4}
    (choice,) = (await chat(client, **wish))["choices"]
    content = choice["logprobs"]["content"]
    assert [one["token"] for one in content] == ["The", " capital", " of", " "]
    assert bytes(content[1]["bytes"]) == b" capital"
    assert all(one["top_logprobs"][0]["token"] == one["token"] for one in content)
    assert {len(one["top_logprobs"]) for one in content} == {2}
    events = await stream(client, **wish, return_token_ids=True, return_prompt_text=True)
    choices = [event["choices"][0] for event in events[:-1]]
    streamed = [one for choice in choices[1:] for one in choice["logprobs"]["content"]]
    assert [one["token"] for one in streamed] == [one["token"] for one in content]
    assert len(events[0]["prompt_token_ids"]) > 5
    assert events[0]["prompt_text"].endswith("<|im_start|>assistant\n")


async def test_history_and_parts_reach_the_prompt(client: httpx.AsyncClient) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "input_text", "text": "two"}]
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
        {"role": "assistant"},
        {"role": "user", "content": "three"},
    ]
    response = await client.post("/apply-template", json={"messages": messages})
    assert response.json()["prompt"] == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\none\ntwo<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|>\n<|im_start|>assistant\n<|im_end|>\n"
        "<|im_start|>user\nthree<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


async def test_a_begun_answer_is_continued_and_echoed(client: httpx.AsyncClient) -> None:
    begun = {
        "messages": [*QUESTION, {"role": "assistant", "content": "The capital"}],
        "continue_final_message": True,
    }
    plain = await chat(client, **begun)
    assert plain["choices"][0]["message"]["content"] == ANSWER.removeprefix("The capital")
    echoed = await chat(client, **begun, echo=True)
    assert echoed["choices"][0]["message"]["content"] == ANSWER
    events = await stream(client, **begun, echo=True)
    contents = [event["choices"][0]["delta"]["content"] for event in events[:-1]]
    assert contents[:2] == ["", "The capital"]
    assert "".join(contents) == ANSWER


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [0, -1])
async def test_an_answer_needs_a_token(client: httpx.AsyncClient, name: str, value: int) -> None:
    body = {"messages": [{"role": "user", "content": "Hello"}], name: value}
    response = await client.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, name)
    assert error["message"] == (
        f"{name} must be at least 1, got {value}; leave it out for the default."
    )


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (
            {"a": 1, "add_generation_prompt_": 2, "enable_thinking": True},
            "does not read 'a', 'add_generation_prompt_', which",
        ),
        ({"messages_": [1], "b": 2}, "does not read 'messages_', 'b', which"),
        ({"enable_thinking": False}, None),
        (None, None),
    ],
)
def test_defaults_that_no_template_reads_are_told_at_the_start(
    engine: AsyncLLM,
    caplog: pytest.LogCaptureFixture,
    kwargs: dict[str, Any] | None,
    words: str | None,
) -> None:
    state = ready_state(engine, default_chat_template_kwargs=kwargs)
    caplog.clear()
    warn_of_templates(state)
    warnings = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert len(warnings) == (words is not None)
    assert words is None or words in warnings[0]


def test_defaults_without_a_template_are_told_at_the_start(
    engine: AsyncLLM, caplog: pytest.LogCaptureFixture
) -> None:
    state = ready_state(engine, default_chat_template_kwargs={"enable_thinking": False})
    state.chat = None
    warn_of_templates(state)
    assert "has no effect: there is no chat template" in caplog.text


def test_a_missing_template_is_told_at_the_start(
    engine: AsyncLLM, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.front.require_tokenizer(), "chat_template", None)
    warn_of_templates(ready_state(engine, default_chat_template_kwargs={"enable_thinking": True}))
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert warning.startswith(
        "chat requests will be refused (completions work): As of transformers"
    )
    caplog.clear()
    warn_of_templates(ready_state(engine, trust_request_chat_template=True))
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("templates", "refused"),
    [
        ({"tool_use": "{{ messages }}"}, "chat requests without tools"),
        ({"rag": "{{ messages }}", "tool_use": "{{ messages }}"}, "chat requests without tools"),
        ({"rag": "{{ messages }}", "other": "{{ messages }}"}, "chat requests"),
    ],
)
def test_named_templates_without_a_default_are_told_at_the_start(
    engine: AsyncLLM,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    templates: dict[str, str],
    refused: str,
) -> None:
    monkeypatch.setattr(engine.front.require_tokenizer(), "chat_template", templates)
    warn_of_templates(ready_state(engine))
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert warning.startswith(f"{refused} will be refused (completions work): ")
    assert "multiple chat templates" in warning and "no chat template" not in warning


async def test_a_template_that_does_not_parse_is_told_at_the_start_and_to_clients(
    engine: AsyncLLM, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "{% for m in messages %}{{ m.content }}"
    monkeypatch.setattr(engine.front.require_tokenizer(), "chat_template", broken)
    state = ready_state(engine, default_chat_template_kwargs={"unread": 1})
    caplog.clear()
    warn_of_templates(state)
    (warning,) = [one.message for one in caplog.records if one.levelname == "WARNING"]
    fault = "The model's chat template does not parse: line 1: "
    assert warning.startswith(f"chat requests will be refused (completions work): {fault}")
    async with in_process_client(state) as client:
        answer = await client.post(PATH, json={"messages": QUESTION})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, None)
    assert error["message"].startswith(fault)


async def test_an_error_names_the_field_that_limits_the_tokens(client: httpx.AsyncClient) -> None:
    body = {"messages": QUESTION, "max_completion_tokens": 100_000}
    error = (await client.post("/v1/chat/completions", json=body)).json()["error"]
    assert error["param"] == "max_completion_tokens"
    assert error["message"].startswith("max_completion_tokens must be at most 2048")


async def test_an_empty_list_of_tools_is_none(client: httpx.AsyncClient) -> None:
    answer = await chat(client, tools=[], max_tokens=4)
    assert answer["choices"] == (await chat(client, max_tokens=4))["choices"]


async def test_max_completion_tokens_wins(client: httpx.AsyncClient) -> None:
    answer = await chat(client, max_tokens=5, max_completion_tokens=2)
    assert answer["usage"]["completion_tokens"] == 2


async def test_a_default_beyond_the_context_is_no_error(
    client: httpx.AsyncClient, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = state.require_engine()
    most = engine.model_config.max_model_len + 1
    model = replace(engine.config.model, generation_config={"max_new_tokens": most})
    monkeypatch.setattr(engine, "config", replace(engine.config, model=model))
    default = SamplingParams(temperature=0, max_tokens=most)
    monkeypatch.setattr(engine, "get_default_sampling_params", lambda: default)
    assert (await chat(client))["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"messages": None}, "messages", "list"),
        ({"messages": "hi"}, "messages", "list"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "Field required"),
        (
            {"messages": [{"role": "usr", "content": "x"}]},
            "messages[0].role",
            "no role 'usr'; did you mean user?",
        ),
        (
            {"messages": [{"role": "user", "content": None}]},
            "messages[0].content",
            "needs a content",
        ),
        (
            {"messages": [*QUESTION, {"role": "tool", "tool_call_id": "c"}]},
            "messages[1].content",
            "needs a content",
        ),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "messages[0].content",
            "messages[0].content: must be a string or a list of text parts, got 3",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages",
            "'image_url' are not supported yet",
        ),
        ({"top_logprobs": 2}, "top_logprobs", "`logprobs` must be set to true"),
        ({"chat_template": "x"}, "chat_template", "--trust-request-chat-template"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
            "Cannot set both",
        ),
        (
            {
                "messages": [*QUESTION, {"role": "assistant", "tool_calls": [CALL]}],
                "continue_final_message": True,
            },
            "messages",
            "messages[1].tool_calls: the final message cannot be continued",
        ),
        ({"chat_template_kwargs": {"messages": []}}, None, "chat_template_kwargs cannot hold"),
        ({"response_format": {"type": "yaml"}}, "response_format", "type must be one of text"),
        ({"messages": [{"role": "user", "content": "x " * 4000}]}, "messages", "maximum context"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None, message: str
) -> None:
    response = await client.post(PATH, json={"messages": QUESTION, **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error["message"]
    assert error["param"] == param


async def test_the_running_usage_of_a_stream_is_right_from_its_first_chunk(
    client: httpx.AsyncClient,
) -> None:
    long = [{"role": "user", "content": "Tell me, please, once again: " * 4}]
    body = {"messages": long, "max_tokens": 3, "ignore_eos": True, "n": 2}
    await client.post(PATH, json=body)
    options = {"include_usage": True, "continuous_usage_stats": True}
    answer = await client.post(PATH, json={**body, "stream": True, "stream_options": options})
    usages = [event["usage"] for event in events_of(answer.text)[:-1]]
    cached = [one["prompt_tokens_details"]["cached_tokens"] for one in usages]
    assert set(cached) == {cached[-1]} and cached[-1] >= 16
    counts = [one["completion_tokens"] for one in usages]
    assert counts[:2] == [0, 0] and counts[-1] == 6 and counts == sorted(counts)
    assert [one["total_tokens"] - one["prompt_tokens"] for one in usages] == counts


async def test_no_messages_are_told_by_name(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"prompt": "x"})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "messages: Field required"


async def test_neutral_values_are_fine(client: httpx.AsyncClient) -> None:
    neutral = {"response_format": {"type": "text"}, "tools": None, "tool_choice": "none"}
    assert (await chat(client, **neutral, max_tokens=1))["choices"]


async def test_a_trusted_template_and_its_arguments(engine: AsyncLLM) -> None:
    state = ready_state(
        engine,
        trust_request_chat_template=True,
        default_chat_template_kwargs={"a": "1", "b": "2"},
    )
    body = {
        "messages": QUESTION,
        "chat_template": "{{ a }}{{ b }}{{ documents[0].text }}{{ messages[0].content }}",
        "chat_template_kwargs": {"b": "3"},
        "documents": [{"text": "D"}],
    }
    async with in_process_client(state) as client:
        response = await client.post("/apply-template", json=body)
    assert response.json()["prompt"] == "13DWhat is the capital of France?"


@pytest.mark.parametrize("field", ["reasoning_effort", "documents"])
async def test_words_in_the_text_of_a_template_are_not_variables_that_it_reads(
    engine: AsyncLLM, field: str
) -> None:
    prose = "Your documents, your thinking, reasoning_effort. {{ messages[0].content }}"
    value = "high" if field == "reasoning_effort" else [{"text": "D"}]
    body = {"messages": QUESTION, "chat_template": prose, field: value}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as client:
        response = await client.post("/apply-template", json=body)
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, field)
        assert "no effect" in error["message"]
        body["chat_template"] = prose + "{{ " + field + " }}"
        assert (await client.post("/apply-template", json=body)).status_code == 200


async def test_a_trusted_template_can_be_named(engine: AsyncLLM) -> None:
    body = {"messages": QUESTION, "chat_template": "vicuna"}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as client:
        response = await client.post("/apply-template", json=body)
        assert response.json()["prompt"].endswith("USER: What is the capital of France? ASSISTANT:")
        response = await client.post("/apply-template", json={**body, "chat_template": "vicunya"})
    error = response.json()["error"]
    assert response.status_code == 400
    assert "no chat template 'vicunya'; did you mean vicuna?" in error["message"]


async def test_a_trusted_template_that_does_not_parse_is_named(engine: AsyncLLM) -> None:
    body = {"messages": QUESTION, "chat_template": "{{ x }}\n{% for"}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as client:
        response = await client.post("/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, "chat_template")
    assert "does not parse: line 2" in error["message"]


async def test_what_ends_an_answer_in_the_format_of_a_named_template_ends_it(
    engine: AsyncLLM,
) -> None:
    (mark,) = engine.front.require_tokenizer().encode("#", add_special_tokens=False)
    fields = {"logit_bias": {str(mark): 100}, "max_tokens": 8}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as client:
        for template, content, reason in [("aquila", "", "stop"), ("vicuna", "#" * 8, "length")]:
            answer = await chat(client, **fields, chat_template=named_chat_template(template))
            (choice,) = answer["choices"]
            assert (choice["message"]["content"], choice["finish_reason"]) == (content, reason)


async def test_the_role_of_answers_is_the_servers(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, response_role="bot")) as client:
        answer = await chat(client, max_tokens=1)
    assert answer["choices"][0]["message"]["role"] == "bot"


QUOTED = "{% for m in messages %}{% if m.role == 'critic' %}C{% endif %}{{ m.role }}{% endfor %}"
KNOWN = "{% for m in messages %}{% if m.role == 'user' %}U{% endif %}{{ m.role }}{% endfor %}"
ANY = "{% for m in messages %}{{ m.role }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "role", "prompt"),
    [
        (None, "assist", None),
        (None, "s", None),
        (None, "im_start", None),
        (KNOWN + QUOTED, "critic", "criticCcritic"),
        (KNOWN, "critic", None),
        (KNOWN, "", None),
        (ANY, "critic", "critic"),
        (ANY, "", None),
        (ANY, "developer", "system"),
        (KNOWN + "{# developer #}", "developer", "system"),
        (KNOWN + '{{ "" if "developer" }}', "developer", "developer"),
        ("{{ 1 }}", "critic", None),
    ],
)
async def test_a_template_may_have_roles_of_its_own(
    engine: AsyncLLM, template: str | None, role: str, prompt: str | None
) -> None:
    body = {"messages": [{"role": role, "content": "x"}], "chat_template": template}
    async with in_process_client(ready_state(engine, trust_request_chat_template=True)) as client:
        answer = await client.post("/apply-template", json=body)
    if prompt is None:
        assert answer.status_code == 400
        assert f"there is no role {role!r}" in answer.json()["error"]["message"]
    else:
        assert answer.json() == {"prompt": prompt}
