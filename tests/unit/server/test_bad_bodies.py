"""Bodies that no client should send: a clear refusal, and the engine goes on."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server.bodies import NOT_TEXT
from quire.server.text_prompt import MAX_PROMPTS

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
DEEP = "[" * 100_000 + "]" * 100_000  # how deep Python can go depends on its version
LONE = "\\ud800"  # half of a pair, as JSON spells it
ESCAPED = r"\\ud83d\ude00"  # a backslash, letters, then the second half
WORD = "cannot be read"


async def refusal(client: httpx.AsyncClient, path: str, body: str | bytes) -> dict[str, Any]:
    answer = await client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def chat(more: str) -> str:
    return '{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, ' + more + "}"


def completion(more: str) -> str:
    return '{"prompt": "Hi", "max_tokens": 2, ' + more + "}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no body"),
        (b"{", "not valid JSON"),
        (b"null", "must be a JSON object"),
        (b"[]", "must be a JSON object"),
        (b'{"prompt": "\xff"}', f"{WORD}: it is not UTF-8"),
        (f'{{"prompt": {DEEP}}}', f"{WORD}: its arrays and objects are nested too deeply"),
        (completion('"seed": ' + "9" * 5000), f"{WORD}: a number in it has too many digits"),
        (completion('"seed": ' + "9" * 40), "less than or equal to"),
        (completion('"temperature": NaN'), "finite number"),
        (completion('"temperature": -Infinity'), "finite number"),
        (completion('"top_p": 1e400'), "finite number"),
        (completion('"logit_bias": {"5": NaN}'), "finite number"),
        (completion('"repetition_penalty": 1e308'), "a number from 1e-06 to 1e+06"),
        (completion('"repetition_penalty": 1e-308'), "a number from 1e-06 to 1e+06"),
        (completion('"timeout_s": Infinity'), "finite number"),
        (completion(f'"user": {DEEP}'), "nested too deeply"),
        (f'{{"prompt": [{"[1]," * 200_000}{DEEP}]}}', "nested too deeply"),
        (f'{{"prompt": [{"1," * 200_000}x]}}', "not valid JSON"),
    ],
)
async def test_a_body_that_cannot_be_used(
    client: httpx.AsyncClient, body: str | bytes, words: str
) -> None:
    error = await refusal(client, COMPLETIONS, body)
    assert words in error["message"]
    assert len(error["message"]) < 500
    assert error["param"] is None or error["param"].isidentifier() or "." in error["param"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (COMPLETIONS, f'{{"prompt": "a{LONE}b"}}'),
        (COMPLETIONS, f'{{"prompt": ["good", "{LONE}"]}}'),
        (COMPLETIONS, completion(f'"stop": "{LONE}"')),
        (COMPLETIONS, completion(f'"model": "{LONE}"')),
        (COMPLETIONS, completion(f'"bad_words": ["{LONE}"]')),
        (CHAT, f'{{"messages": [{{"role": "user", "content": "{LONE}"}}]}}'),
        ("/tokenize", f'{{"prompt": "{LONE}"}}'),
        ("/v1/responses", f'{{"input": "{LONE}"}}'),
        ("/v1/responses", f'{{"input": "Hi", "max_output_tokens": 2, "user": "{LONE}"}}'),
        (COMPLETIONS, completion(f'"model": "{ESCAPED}"')),
        (COMPLETIONS, completion(f'"guided_choice": ["{ESCAPED}"]')),
        ("/apply-template", f'{{"messages": [{{"role": "user", "content": "{ESCAPED}"}}]}}'),
        ("/v1/responses", f'{{"input": "Hi", "metadata": {{"a": "{ESCAPED}"}}}}'),
    ],
)
async def test_half_a_character_is_refused(client: httpx.AsyncClient, path: str, body: str) -> None:
    assert (await refusal(client, path, body))["message"] == NOT_TEXT


async def test_whole_pairs_and_null_bytes_are_text(client: httpx.AsyncClient) -> None:
    body = '{"prompt": "\\ud83d\\ude00\\u0000", "max_tokens": 1, "echo": true}'
    answer = await client.post(
        COMPLETIONS, content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.json()["choices"][0]["text"].startswith("😀\0")


@pytest.mark.parametrize(
    ("path", "body", "key"),
    [
        (COMPLETIONS, completion('"response_format": {}, "response_format": null'), "'respo"),
        (COMPLETIONS, completion('"max_tokens": 2'), "'max_tokens' 2 times"),
        (CHAT, '{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "'content'"),
        (COMPLETIONS, completion('"metadata": {"model": 1, "model": 2}'), "'model' 2 times"),
        (CHAT, chat('"zzz": {"": 1, "": 1, "": 1}'), "'' 3 times"),
        (COMPLETIONS, completion(f'"{LONE}": 1, "{LONE}": 1'), r"'\ud800' 2 times"),
        (COMPLETIONS, f'{{"prompt": [{"1," * 200_000}1], "prompt": "Hi"}}', "'prompt' 2 times"),
    ],
)
async def test_a_key_that_stands_twice_is_named(
    client: httpx.AsyncClient, path: str, body: str, key: str
) -> None:
    error = await refusal(client, path, body)
    assert error["message"].startswith(f"The body has the key {key}")
    assert error["param"] is None


@pytest.mark.parametrize(
    "kwargs", [f'{{"a": {"[" * 900 + "]" * 900}}}', '{"self": 1}', '{"tokenizer_kwargs": 3}']
)
async def test_what_a_template_gets_may_be_wrong(client: httpx.AsyncClient, kwargs: str) -> None:
    answer = await client.post(
        CHAT,
        content=chat(f'"chat_template_kwargs": {kwargs}'),
        headers={"Content-Type": "application/json"},
    )
    if "self" in kwargs:
        assert answer.status_code == 400
        assert "template" in answer.json()["error"]["message"]
    assert answer.status_code < 500


@pytest.mark.parametrize("field", ["response_format", "tools", "zzz", "stream_options"])
async def test_no_field_may_be_too_deep(client: httpx.AsyncClient, field: str) -> None:
    await refusal(client, CHAT, chat(f'"{field}": {"[" * 900 + "]" * 900}'))


async def test_as_many_prompts_as_there_may_be(client: httpx.AsyncClient) -> None:
    body = {"prompt": ["Hi"] * MAX_PROMPTS, "max_tokens": 1, "temperature": 0}
    answer = await client.post(COMPLETIONS, json=body)
    texts = {choice["text"] for choice in answer.json()["choices"]}
    assert len(answer.json()["choices"]) == MAX_PROMPTS and len(texts) == 1
    error = await refusal(client, COMPLETIONS, json.dumps({"prompt": ["Hi"] * (MAX_PROMPTS + 1)}))
    assert f"may have {MAX_PROMPTS}" in error["message"]


async def test_completions_of_all_prompts_together_are_limited(client: httpx.AsyncClient) -> None:
    error = await refusal(client, COMPLETIONS, json.dumps({"prompt": ["Hi"] * 100, "n": 200}))
    assert "20000 completions" in error["message"] and error["param"] == "n"


async def test_long_stop_strings_are_only_long(client: httpx.AsyncClient) -> None:
    body = {"prompt": "Hi", "max_tokens": 4, "temperature": 0, "stop": ["x" * 100_000] * 4}
    stopped = await client.post(COMPLETIONS, json=body)
    plain = await client.post(COMPLETIONS, json={**body, "stop": None})
    assert stopped.json()["choices"][0]["text"] == plain.json()["choices"][0]["text"]


async def test_very_many_faults_are_counted(client: httpx.AsyncClient) -> None:
    body = {"input": "Hi", "metadata": dict.fromkeys(range(101))}
    error = await refusal(client, "/v1/responses", json.dumps(body))
    assert "it has 101 errors" in error["message"]


async def test_the_engine_is_as_it_was(client: httpx.AsyncClient, engine: AsyncLLM) -> None:
    for body in ('{"prompt": "a' + LONE + '"}', completion('"temperature": NaN')):
        await refusal(client, COMPLETIONS, body)
    stats = await engine.stats()
    assert (stats.num_running, stats.num_waiting) == (0, 0)
    assert stats.num_free_blocks == stats.num_blocks - 1


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (CHAT, {"messages": [{}] * 10}, "messages[0].role"),
        (COMPLETIONS, {"prompt": "Hi", "stop_token_ids": ["x"] * 10}, "stop_token_ids[0]"),
        ("/detokenize", {"tokens": ["x"] * 10}, "tokens[0]"),
        ("/v1/responses", {"input": "Hi", "tools": [1] * 10}, "tools[0]"),
    ],
)
async def test_of_a_list_the_first_fault_is_told(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], place: str
) -> None:
    """The others would be made first, and cost memory a hundred times their bytes."""
    error = await refusal(client, path, json.dumps(body))
    assert error["param"] == place
    assert error["message"].count("[") == 1
