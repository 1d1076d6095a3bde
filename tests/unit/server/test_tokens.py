"""Counting and converting tokens over HTTP."""

from __future__ import annotations

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM

MESSAGES = [{"role": "user", "content": "héllo 世界"}]


@pytest.mark.parametrize("prefix", ["", "/v1"])
async def test_tokenize_and_back(client: httpx.AsyncClient, engine: AsyncLLM, prefix: str) -> None:
    text = "héllo 世界 <|im_end|>"
    expected = engine.front.require_tokenizer().encode(text)
    body = {"prompt": text, "return_token_strs": True}
    answer = (await client.post(f"{prefix}/tokenize", json=body)).json()
    assert answer["tokens"] == expected
    assert answer["count"] == len(expected) == len(answer["token_strs"])
    assert answer["max_model_len"] == engine.model_config.max_model_len
    back = await client.post(f"{prefix}/detokenize", json={"tokens": expected})
    assert back.json() == {"prompt": text}


async def test_messages_have_the_same_tokens_everywhere(
    client: httpx.AsyncClient, engine: AsyncLLM
) -> None:
    prompt = (await client.post("/apply-template", json={"messages": MESSAGES})).json()["prompt"]
    expected = engine.front.require_tokenizer().encode(prompt)
    tokens = (await client.post("/tokenize", json={"messages": MESSAGES})).json()
    assert (tokens["tokens"], tokens["token_strs"]) == (expected, None)
    path = "/v1/chat/completions/input_tokens"
    counted = (await client.post(path, json={"messages": MESSAGES, "max_tokens": 5})).json()
    assert counted["input_tokens"] == len(expected)


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/tokenize", {}, "Pass either prompt"),
        ("/tokenize", {"prompt": "x", "messages": MESSAGES}, "Pass either prompt"),
        ("/tokenize", {"prompt": "x", "promt": "y"}, "did you mean prompt?"),
        ("/tokenize", {"prompt": "x", "tools": [{"type": "function"}]}, "tools goes with messages"),
        ("/tokenize", {"prompt": "x", "chat_template_kwargs": {"a": 1}}, "goes with messages"),
        ("/tokenize", {"prompt": "x", "reasoning_effort": "high"}, "reasoning_effort goes with"),
        (
            "/tokenize",
            {"prompt": "x", "add_generation_prompt": False},
            "add_generation_prompt goes",
        ),
        ("/detokenize", {}, "tokens: Field required"),
        ("/detokenize", {"tokens": [4096]}, "token id 4096 is outside the vocabulary"),
        ("/detokenize", {"tokens": [-1]}, "greater than or equal to 0"),
    ],
)
async def test_a_wrong_body_is_told_what_is_wrong(
    client: httpx.AsyncClient, path: str, body: dict[str, object], message: str
) -> None:
    response = await client.post(path, json=body)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
