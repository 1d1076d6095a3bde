"""The oldest turns are left out when a conversation is too long."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.responses_truncation import without_oldest_turns
from quire.server.state import ServerState

CONTEXT = 2048
WORDS = 60  # of a turn, each at least a token


def conversation(num_turns: int) -> ChatCompletionRequest:
    """A system's message, turns of question, call, result and answer, and a last question."""
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    for i in range(num_turns):
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages += [
            {"role": "user", "content": f"{i} " + "word " * WORDS},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "7"},
            {"role": "assistant", "content": f"answer {i}"},
        ]
    messages.append({"role": "user", "content": "last"})
    return ChatCompletionRequest.model_validate({"messages": messages})


async def num_tokens(client: httpx.AsyncClient, chat: ChatCompletionRequest) -> int:
    body = {"messages": [one.model_dump(exclude_none=True) for one in chat.messages]}
    response = await client.post("/v1/chat/completions/input_tokens", json=body)
    return int(response.json()["input_tokens"])


@pytest.mark.parametrize(("max_tokens", "answer"), [(None, 512), (100, 100), (9999, 1024)])
async def test_as_few_turns_as_possible_are_left_out(
    state: ServerState, client: httpx.AsyncClient, max_tokens: int | None, answer: int
) -> None:
    chat = conversation(30).model_copy(update={"max_tokens": max_tokens})
    shorter = without_oldest_turns(state, chat)
    head, *rest = shorter.messages
    assert head.role == "system"
    assert rest == chat.messages[-len(rest) :]
    assert rest[0].role == "user"
    assert await num_tokens(client, shorter) <= CONTEXT - answer
    one_more = chat.messages[-len(rest) - 4 :]
    longer = chat.model_copy(update={"messages": [head, *one_more]})
    assert await num_tokens(client, longer) > CONTEXT - answer


def test_what_fits_stays_whole(state: ServerState) -> None:
    chat = conversation(2)
    assert without_oldest_turns(state, chat).messages == chat.messages


async def test_the_last_turn_stays_even_if_it_is_too_long(client: httpx.AsyncClient) -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    for items in (long, [{"role": "user", "content": "x"}, *long]):
        body = {"input": items, "truncation": "auto"}
        response = await client.post("/v1/responses", json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "input"
        assert "maximum context length" in response.json()["error"]["message"]


async def test_a_request_can_ask_for_it(client: httpx.AsyncClient) -> None:
    turn = [{"role": "user", "content": "word " * 300}, {"role": "assistant", "content": "x"}]
    items = [*(turn * 20), {"role": "user", "content": "What is 3 plus 4?"}]
    body = {"input": items, "max_output_tokens": 5}
    assert (await client.post("/v1/responses", json=body)).status_code == 400
    answer = (await client.post("/v1/responses", json={**body, "truncation": "auto"})).json()
    assert answer["truncation"] == "auto"
    assert CONTEXT // 2 < answer["usage"]["input_tokens"] <= CONTEXT - 5
