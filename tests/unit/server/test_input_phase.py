"""Work on what was sent: what only counts is in nobody's way, what is too much is not begun, and
what nobody waits for ends."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.requests import ClientDisconnect, Request

from quire import EngineArgs
from quire.engine.async_engine import AsyncLLM
from quire.server import intake, prompt_tokens
from quire.server.fields import judge
from quire.server.input_phase import IN_THREAD_BYTES, LARGE_BYTES, go_on
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.state import ServerState
from tests.fakes.server import BUILD_SILENT_CORE, in_process_client, ready_state
from tests.fakes.waiting import DEADLINE_S, until

JSON = {"Content-Type": "application/json"}
CHAT = "/v1/chat/completions/input_tokens"


@pytest.fixture
def tokenized(state: ServerState, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts that were tokenized at once."""
    inputs = state.require_engine().front.inputs
    tokenize, lengths = inputs.tokenize_all, []

    def noting(prompts: Any) -> Any:
        lengths.append(sum(len(one.text or "") for one in prompts))
        return tokenize(prompts)

    monkeypatch.setattr(inputs, "tokenize_all", noting)
    return lengths


async def test_generation_is_never_behind_counting(
    client: httpx.AsyncClient, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = state.require_engine().front.inputs
    tokenize, may_end, begun = inputs.tokenize_all, threading.Event(), threading.Semaphore(0)

    def slowly(prompts: Any) -> Any:
        if "count" in (prompts[0].text or ""):
            begun.release()
            assert may_end.wait(DEADLINE_S)
        return tokenize(prompts)

    monkeypatch.setattr(inputs, "tokenize_all", slowly)
    sizes = [LARGE_BYTES] * 3 + [IN_THREAD_BYTES] * 40
    counts = [
        asyncio.create_task(
            client.post("/tokenize", json={"prompt": "count " + "x " * (size // 2)})
        )
        for size in sizes
    ]
    await until(lambda: begun.acquire(blocking=False))
    for size in (LARGE_BYTES, IN_THREAD_BYTES):
        body = {"prompt": "Hi", "max_tokens": 1, "user": "x" * size}
        answer = await asyncio.wait_for(client.post("/v1/completions", json=body), DEADLINE_S)
        assert answer.status_code == 200
    may_end.set()
    assert {one.status_code for one in await asyncio.gather(*counts)} == {200}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {"prompt": "TEXT"}, "prompt"),
        ("/tokenize", {"messages": [{"role": "user", "content": "TEXT"}]}, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "TEXT"}]}, "messages"),
        ("/v1/responses/input_tokens", {"input": "TEXT"}, "input"),
        (
            "/v1/messages/count_tokens",
            {"messages": [{"role": "user", "content": "TEXT"}]},
            "messages",
        ),
    ],
)
async def test_a_text_that_is_far_too_long_is_not_counted(
    client: httpx.AsyncClient,
    tokenized: list[int],
    path: str,
    body: dict[str, Any],
    param: str,
) -> None:
    content = json.dumps(body).replace("TEXT", "a " * 600_000)
    answer = await client.post(path, content=content, headers=JSON)
    assert answer.status_code == 400
    message = answer.json()["error"]["message"]
    assert message.startswith(f"{param}: 12")
    assert "1048576 that a request may have" in message and "send them in parts" in message
    assert tokenized == []


async def test_a_text_that_is_a_little_too_long_is_counted(
    client: httpx.AsyncClient, engine: AsyncLLM
) -> None:
    num_words = 4 * engine.model_config.max_model_len
    counted = await client.post("/tokenize", json={"prompt": " a" * num_words})
    assert counted.json()["count"] >= num_words


async def test_very_many_messages_are_not_rendered(
    client: httpx.AsyncClient, engine: AsyncLLM
) -> None:
    count = 16 * engine.model_config.max_model_len + 1
    messages = [{"role": "user", "content": "a"}] * count
    for path in (CHAT, "/apply-template"):
        answer = await client.post(path, json={"messages": messages})
        assert answer.status_code == 400
        assert f"messages: {count} messages are more than" in answer.json()["error"]["message"]


async def test_very_many_token_ids_are_no_text(client: httpx.AsyncClient) -> None:
    answer = await client.post("/detokenize", json={"tokens": [5] * ((1 << 20) + 1)})
    assert answer.status_code == 400
    assert "tokens: 1048577 token ids are more than" in answer.json()["error"]["message"]


async def test_many_texts_are_tokenized_in_parts(
    client: httpx.AsyncClient, tokenized: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompt_tokens, "_CHARS_AT_ONCE", 10)
    body = {"prompt": ["abcd", "abcd", "abcd", "abcdabcdabcd", "a"], "max_tokens": 0, "echo": True}
    answer = await client.post("/v1/completions", json=body)
    assert tokenized == [8, 4, 12, 1]
    assert [one["text"] for one in answer.json()["choices"]] == body["prompt"]


@pytest.mark.parametrize(
    ("num_bytes", "leaves"), [(IN_THREAD_BYTES, False), (LARGE_BYTES, False), (LARGE_BYTES, True)]
)
async def test_work_that_nobody_waits_for_ends(
    state: ServerState, num_bytes: int, leaves: bool
) -> None:
    begun, ended, has_left = threading.Event(), threading.Event(), asyncio.Event()

    def work() -> None:
        begun.set()
        try:
            while True:
                go_on()
        finally:
            ended.set()

    async def receive() -> Any:
        await has_left.wait()
        return {"type": "http.disconnect"}

    request = Request({"type": "http"}, receive)
    doing = asyncio.create_task(state.inputs.do(request, num_bytes, work))
    await until(begun.is_set)
    has_left.set() if leaves else doing.cancel()
    with pytest.raises(ClientDisconnect if leaves else asyncio.CancelledError):
        await doing
    assert await asyncio.to_thread(ended.wait, DEADLINE_S)


async def test_fields_are_not_judged_for_nobody(state: ServerState) -> None:
    kwargs = {f"a{i}": 1 for i in range(100)}
    chat = {"messages": [{"role": "user", "content": "x"}], "chat_template_kwargs": kwargs}
    body = ChatCompletionRequest.model_validate(chat)
    begun, may_go_on, ended, asked = threading.Event(), threading.Event(), threading.Event(), []

    def template() -> str:
        asked.append(None)
        begun.set()
        assert may_go_on.wait(DEADLINE_S)
        return ""

    def work() -> None:
        try:
            judge(body, "off", template)
        finally:
            ended.set()

    request = Request({"type": "http"})
    doing = asyncio.create_task(state.inputs.do(request, IN_THREAD_BYTES, work))
    assert await asyncio.to_thread(begun.wait, DEADLINE_S)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    may_go_on.set()
    assert await asyncio.to_thread(ended.wait, DEADLINE_S)
    assert len(asked) == 1


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize"])
async def test_the_time_limit_of_requests_holds_while_the_input_is_worked_on(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    state = ready_state(engine, request_timeout=0.01)
    tokenize, may_end = engine.front.inputs.tokenize_all, threading.Event()

    def slowly(prompts: Any) -> Any:
        assert may_end.wait(DEADLINE_S)
        return tokenize(prompts)

    monkeypatch.setattr(engine.front.inputs, "tokenize_all", slowly)
    async with in_process_client(state) as client:
        body = {"prompt": "x " * LARGE_BYTES}
        answer = await asyncio.wait_for(client.post(path, json=body), DEADLINE_S)
    may_end.set()
    assert answer.status_code == 408
    assert "--request-timeout=0.01 seconds" in answer.json()["error"]["message"]
    assert len(state.running) == 0


async def test_the_time_limit_of_requests_holds_while_the_body_comes(engine: AsyncLLM) -> None:
    state = ready_state(engine, request_timeout=0.01)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with in_process_client(state) as client:
        asked = client.post("/v1/completions", content=body(), headers=JSON)
        answer = await asyncio.wait_for(asked, DEADLINE_S)
    assert answer.status_code == 408
    assert answer.json()["error"]["type"] == "RequestTimeoutError"


async def test_the_time_that_the_input_took_is_gone_for_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = EngineArgs(device="cpu", use_tqdm_on_load=False).create_engine_config()
    engine = AsyncLLM(config, multiprocess_mode=False, build=BUILD_SILENT_CORE)
    state = ready_state(engine, request_timeout=1000)
    long_ago = asyncio.get_running_loop().time() - 1000
    monkeypatch.setattr(intake, "arrived", lambda request: long_ago)
    async with in_process_client(state) as client:
        asked = client.post("/v1/completions", json={"prompt": "Hi"})
        answer = await asyncio.wait_for(asked, DEADLINE_S)
    engine.shutdown()
    assert answer.status_code == 408
