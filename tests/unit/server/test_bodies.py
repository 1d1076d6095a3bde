"""Large bodies and answers hold up nobody; values of other types are refused."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from quire.engine.async_engine import AsyncLLM
from quire.server import bodies, whole
from quire.server.input_phase import IN_THREAD_BYTES, LARGE_BYTES
from quire.server.intake import Started
from quire.server.state import ServerState
from tests.fakes.server import in_process_client, ready_state

JSON = {"Content-Type": "application/json"}
LARGE = b'{"prompt": "Hi", "max_tokens": 1, "user": "%s"}' % (b"x" * 20_000_000)


async def answered_meanwhile(
    client: httpx.AsyncClient, path: str, body: bytes, is_at_work: threading.Event
) -> None:
    """A large body is worked on until /health has answered."""
    answer = asyncio.create_task(client.post(path, content=body, headers=JSON))
    while not is_at_work.is_set():
        assert not answer.done()
        await asyncio.sleep(0)
    assert (await client.get("/health")).status_code == 200
    assert not answer.done()
    MAY_GO_ON.set()
    assert (await answer).status_code == 200


MAY_GO_ON = threading.Event()


@pytest.fixture
def is_at_work() -> threading.Event:
    MAY_GO_ON.clear()
    return threading.Event()


async def test_a_large_body_is_parsed_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, is_at_work: threading.Event
) -> None:
    parse = bodies._parsed

    def slowly(text: str) -> Any:
        is_at_work.set()
        assert MAY_GO_ON.wait(20), "the event loop was held up"
        return parse(text)

    monkeypatch.setattr(bodies, "_parsed", slowly)
    await answered_meanwhile(client, "/v1/completions", LARGE, is_at_work)


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/v1/responses"])
async def test_a_long_prompt_is_tokenized_beside_the_event_loop(
    client: httpx.AsyncClient,
    state: ServerState,
    monkeypatch: pytest.MonkeyPatch,
    is_at_work: threading.Event,
    path: str,
) -> None:
    inputs = state.require_engine().front.inputs
    tokenize = inputs.tokenize_all

    def slowly(prompts: Any) -> Any:
        is_at_work.set()
        assert MAY_GO_ON.wait(20), "the event loop was held up"
        return tokenize(prompts)

    monkeypatch.setattr(inputs, "tokenize_all", slowly)
    text = "word " * 1000
    body = {"input": text, "max_output_tokens": 1} if "resp" in path else {"prompt": text}
    await answered_meanwhile(client, path, json.dumps(body).encode(), is_at_work)


async def test_large_inputs_keep_no_other_waiting(state: ServerState) -> None:
    may_end, ended = threading.Event(), []

    def work() -> None:
        assert may_end.wait(20)
        ended.append(1)

    has_left = asyncio.Event()

    async def receive() -> Any:
        await has_left.wait()
        return {"type": "http.disconnect"}

    async def stays() -> Any:
        return await asyncio.Event().wait()

    def of(receive: Any) -> Request:
        return Request({"type": "http"}, receive)

    inputs = state.inputs
    large = [asyncio.create_task(inputs.do(of(stays), LARGE_BYTES, work)) for _ in range(10)]
    leaving = [asyncio.create_task(inputs.do(of(receive), LARGE_BYTES, work)) for _ in range(90)]
    await asyncio.sleep(0)
    assert await inputs.do(of(stays), IN_THREAD_BYTES, lambda: list(ended)) == []
    has_left.set()
    gone = await asyncio.gather(*leaving, return_exceptions=True)
    assert all(isinstance(one, ClientDisconnect) for one in gone)
    may_end.set()
    await asyncio.gather(*large)
    assert len(ended) == 10  # nothing is done for those that have gone


async def test_a_template_of_the_request_works_beside_the_event_loop(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch, is_at_work: threading.Event
) -> None:
    state = ready_state(engine, trust_request_chat_template=True)
    assert state.chat is not None
    render = state.chat.render

    def slowly(*args: Any) -> Any:
        is_at_work.set()
        assert MAY_GO_ON.wait(20), "the event loop was held up"
        return render(*args)

    monkeypatch.setattr(state.chat, "render", slowly)
    body = {"messages": [{"role": "user", "content": "x"}], "chat_template": "{{ 'a' }}"}
    async with in_process_client(state) as client:
        whole_body = json.dumps({**body, "max_tokens": 1}).encode()
        await answered_meanwhile(client, "/v1/chat/completions", whole_body, is_at_work)
        body["chat_template"] = "{{ 'a b ' * 300000 }}"
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400
    assert "has at least" in answer.json()["error"]["message"]


@pytest.mark.parametrize("many", [10, 200_000])
async def test_many_values_are_read_as_few_are(client: httpx.AsyncClient, many: int) -> None:
    body = {"prompt": "a", "metadata": [{"n": i, "x": [1.5, "\u00e9", None]} for i in range(many)]}
    assert bodies._parsed(json.dumps(body)) == body


@pytest.mark.parametrize(
    ("text", "is_text"),
    [
        ("\\ud83d\\ude00", True),
        ("\\ud83d\\ud83d\\ude00", False),
        ("\\ude00", False),
        ("\\\\ud83d", True),  # an escaped backslash and letters
        ("\\uD83D", False),
        ("\\\\ud83d\\ude00", False),
        ("\\\\\\ud83d\\ude00", True),  # an escaped backslash and a whole pair
        ("\\\\\\\\ud83d\\uDE00", False),
        ("\\ud83d\\\\ude00", False),
        ("\\n\\ud83d\\ude00\\\\ude00", True),
    ],
)
async def test_halves_of_characters_are_found(
    client: httpx.AsyncClient, text: str, is_text: bool
) -> None:
    body = f'{{"prompt": "Hi", "max_tokens": 1, "metadata": {{"{text}": 1}}}}'
    answer = await client.post("/v1/completions", content=body, headers=JSON)
    assert answer.status_code == (200 if is_text else 400)
    if not is_text:
        assert answer.json()["error"]["message"] == bodies.NOT_TEXT


async def test_a_byte_order_mark_is_no_text(client: httpx.AsyncClient) -> None:
    body = b'\xef\xbb\xbf{"prompt": "Hi", "max_tokens": 1}'
    answer = await client.post("/v1/completions", content=body, headers=JSON)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/completions", {"prompt": "Hi", "logprobs": 5}),
        ("/v1/completions", {"prompt": "Hi, my old friend", "prompt_logprobs": 5}),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 5},
        ),
    ],
)
async def test_a_large_answer_is_built_beside_the_event_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, fields: dict[str, Any]
) -> None:
    threads: list[threading.Thread] = []
    build = Started.whole

    def noted(started: Started, content: object) -> Response:
        threads.append(threading.current_thread())
        return build(started, content)

    monkeypatch.setattr(Started, "whole", noted)
    body = {**fields, "max_tokens": 4, "ignore_eos": True, "temperature": 0, "seed": 1}
    small = (await client.post(path, json=body)).json()
    monkeypatch.setattr(whole, "IN_THREAD_TOKENS", 8)
    large = (await client.post(path, json=body)).json()
    assert threads[0] is threading.main_thread() is not threads[1]
    assert small["choices"] == large["choices"]
    assert small["usage"]["completion_tokens"] == large["usage"]["completion_tokens"] == 4


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("max_tokens", "5"), ("max_tokens", True), ("max_tokens", 5.5), ("n", True)),
        *(("logprobs", True), ("seed", "1"), ("temperature", "0.5"), ("top_p", True)),
        *(("stream", "yes"), ("stream", 1), ("echo", "true"), ("timeout_s", "3")),
        *(("stop_token_ids", [True]), ("allowed_token_ids", ["5"])),
    ],
)
async def test_values_of_another_type_are_not_guessed_at(
    client: httpx.AsyncClient, name: str, value: Any
) -> None:
    answer = await client.post("/v1/completions", json={"prompt": "Hi", name: value})
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert error["param"].partition("[")[0] == name
    assert error["message"].startswith(error["param"])


@pytest.mark.parametrize(
    "fields", [{"temperature": 0}, {"top_p": 1}, {"n": 1.0}, {"max_tokens": 2.0}, {"stream": None}]
)
async def test_integers_are_numbers_and_whole_numbers_integers(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    body = {"prompt": "Hi", "max_tokens": 1, **fields}
    assert (await client.post("/v1/completions", json=body)).status_code == 200
