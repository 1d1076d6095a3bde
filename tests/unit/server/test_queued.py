"""Requests that end while they wait: every answer has its form, without having been computed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from quire import EngineArgs
from quire.engine.async_engine import AsyncLLM
from quire.server.state import ServerState
from tests.fakes.server import BUILD_SILENT_CORE, events_of, in_process_client, ready_state
from tests.fakes.waiting import DEADLINE_S, until

MESSAGES = {"messages": [{"role": "user", "content": "Hi"}]}
SCORED = {"prompt": "Hi there", "logprobs": 1, "max_tokens": 2}


@pytest.fixture
def engine() -> Iterator[AsyncLLM]:
    """Of the bundled model's tokenizer, and of nothing that would compute."""
    config = EngineArgs(device="cpu", use_tqdm_on_load=False).create_engine_config()
    engine = AsyncLLM(config, multiprocess_mode=False, build=BUILD_SILENT_CORE)
    yield engine
    engine.shutdown()


@pytest.fixture
def state(engine: AsyncLLM) -> ServerState:
    return ready_state(engine, sse_keep_alive_interval=0)


@pytest.fixture
async def client(state: ServerState) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process_client(state) as client:
        yield client


async def cancelled(
    client: httpx.AsyncClient, state: ServerState, path: str, body: dict[str, Any]
) -> httpx.Response:
    answer = asyncio.create_task(client.post(path, json={**body, "request_id": "a"}))

    def is_in_the_engine() -> bool:
        running = state.running.get("a")
        return running is not None and running.num_prompt_tokens > 0

    await until(is_in_the_engine)
    assert (await client.post("/v1/requests/a/cancel")).status_code == 200
    return await asyncio.wait_for(answer, DEADLINE_S)


@pytest.mark.parametrize(
    ("fields", "num_choices", "num_tokens"),
    [
        ({}, 1, 0),
        ({"echo": True}, 1, 2),
        ({"echo": True, "prompt_logprobs": 1}, 1, 2),
        ({"echo": True, "n": 3}, 3, 2),
        ({"echo": True, "prompt": ["Hi there", "Hi there"]}, 2, 2),
        ({"echo": True, "max_tokens": 0}, 1, 2),
        ({"echo": True, "stream": True}, 1, 2),
        ({"echo": True, "stream": True, "prompt": ["Hi there", "Hi there"]}, 2, 2),
    ],
)
async def test_a_cancelled_completion_says_abort(
    client: httpx.AsyncClient,
    state: ServerState,
    fields: dict[str, Any],
    num_choices: int,
    num_tokens: int,
) -> None:
    response = await cancelled(client, state, "/v1/completions", {**SCORED, **fields})
    assert response.status_code == 200, response.text
    if fields.get("stream"):
        events = [event for event in events_of(response.text) if event != "[DONE]"]
        choices = [choice for event in events for choice in event["choices"]]
    else:
        choices = response.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(num_choices))
    for choice in choices:
        assert choice["finish_reason"] == "abort"
        assert choice["logprobs"]["token_logprobs"] == [None] * num_tokens
        assert choice["text"] == ("Hi there" if num_tokens else "")


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_cancelled_message_is_an_error_of_its_api(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool
) -> None:
    body = {**MESSAGES, "max_tokens": 2, "stream": is_stream}
    response = await cancelled(client, state, "/v1/messages", body)
    assert response.status_code == (200 if is_stream else 400)
    data = response.text.rpartition("data: ")[2]
    assert '"type":"error"' in data and "The request was cancelled" in data


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_cancelled_chat_and_response_say_so(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool
) -> None:
    chat = await cancelled(
        client, state, "/v1/chat/completions", {**MESSAGES, "logprobs": True, "stream": is_stream}
    )
    assert chat.status_code == 200 and '"finish_reason":"abort"' in chat.text
    response = await cancelled(client, state, "/v1/responses", {"input": "Hi", "stream": is_stream})
    assert response.status_code == 200 and '"status":"cancelled"' in response.text
