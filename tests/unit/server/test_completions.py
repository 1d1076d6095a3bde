"""``/v1/completions`` on the bundled model."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server.completions_stream import CompletionStream
from tests.fakes.server import MODEL, events_of, in_process_client, ready_state

PROMPT = "The capital of France is"
GREEDY = {"temperature": 0, "max_tokens": 6}
USAGE = {"stream_options": {"include_usage": True}, "stream": True}


async def complete(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.post("/v1/completions", json={"prompt": PROMPT, **GREEDY, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def stream(client: httpx.AsyncClient, **body: Any) -> list[Any]:
    whole = {"prompt": PROMPT, **GREEDY, "stream": True, **body}
    response = await client.post("/v1/completions", json=whole)
    assert response.status_code == 200, response.text
    return events_of(response.text)


async def refusal(client: httpx.AsyncClient, **body: Any) -> Any:
    response = await client.post("/v1/completions", json={"prompt": PROMPT, **GREEDY, **body})
    assert response.status_code == 400, response.text
    return response.json()["error"]


def texts_of(events: list[Any]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"] if isinstance(event, dict) else ():
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


async def test_the_whole_answer(client: httpx.AsyncClient) -> None:
    headers = {"X-Request-Id": "mine"}
    body = {"prompt": PROMPT, **GREEDY, "model": MODEL, "stop": ["."]}
    response = await client.post("/v1/completions", json=body, headers=headers)
    answer = response.json()
    assert response.headers["x-request-id"] == "mine"
    assert answer["id"] == "cmpl-mine"
    assert (answer["object"], answer["model"]) == ("text_completion", MODEL)
    assert answer["system_fingerprint"].startswith("quire-")
    (choice,) = answer["choices"]
    assert choice["text"] == " Paris"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ".")
    assert choice["logprobs"] is None
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"].keys() == {"cached_tokens"}


async def test_choices_are_numbered_over_prompts_and_samples(client: httpx.AsyncClient) -> None:
    prompts = ["What is 3 plus 4?", PROMPT]
    answer = await complete(client, prompt=prompts, n=2)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    alone = [(await complete(client, prompt=one))["choices"][0]["text"] for one in prompts]
    texts = [choice["text"] for choice in answer["choices"]]
    assert texts == [alone[0], alone[0], alone[1], alone[1]]
    events = await stream(client, prompt=prompts, n=2, **USAGE)
    assert texts_of(events) == dict(enumerate(texts))
    assert events[-1] == "[DONE]"
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == answer["usage"]["completion_tokens"]
    assert events[-2]["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"]


async def test_token_ids_are_a_prompt_too(client: httpx.AsyncClient, engine: AsyncLLM) -> None:
    token_ids = engine.front.require_tokenizer().encode(PROMPT)
    plain = await complete(client, return_token_ids=True)
    for prompt in (token_ids, [token_ids]):
        answer = await complete(client, prompt=prompt, return_token_ids=True)
        assert answer["choices"] == plain["choices"]
    assert plain["choices"][0]["prompt_token_ids"] == token_ids


async def test_a_stream_says_what_the_whole_answer_says(client: httpx.AsyncClient) -> None:
    whole = await complete(client, logprobs=2, return_token_ids=True)
    events = await stream(client, logprobs=2, return_token_ids=True)
    assert events.pop() == "[DONE]"
    (choice,) = whole["choices"]
    chunks = [event["choices"][0] for event in events]
    assert "".join(chunk["text"] for chunk in chunks) == choice["text"]
    assert [i for chunk in chunks for i in chunk["token_ids"]] == choice["token_ids"]
    assert chunks[0]["prompt_token_ids"] == choice["prompt_token_ids"]
    for key, values in choice["logprobs"].items():
        streamed = [value for chunk in chunks for value in chunk["logprobs"][key]]
        if key in ("tokens", "text_offset"):
            assert streamed == values
        assert len(streamed) == len(values)
    assert [chunk["finish_reason"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1]["finish_reason"] == choice["finish_reason"]
    assert "system_fingerprint" in events[-1]
    assert "system_fingerprint" not in events[0]


@pytest.mark.parametrize("logprobs", [None, 2])
async def test_large_chunks_of_a_stream_are_built_in_threads(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, logprobs: int | None
) -> None:
    """And they are those of a small answer."""
    body = {"n": 3, "echo": True, "logprobs": logprobs, "prompt": [PROMPT, PROMPT]}
    in_loop, threads = await stream(client, **body), set()
    chunk = CompletionStream._chunk

    def noting(*args: Any) -> bytes:
        threads.add(threading.current_thread() is threading.main_thread())
        return chunk(*args)

    monkeypatch.setattr(CompletionStream, "_chunk", noting)
    monkeypatch.setattr("quire.server.completions_stream.IN_THREAD_TOKENS", 1)
    in_threads = await stream(client, **body)
    assert threads == {logprobs is None}
    assert _by_choice(in_threads) == _by_choice(in_loop)


def _by_choice(events: list[Any]) -> dict[int, tuple[str, list[Any]]]:
    """The text and the tokens of each choice of a stream."""
    found: dict[int, tuple[str, list[Any]]] = {}
    for event in events[:-1]:
        (choice,) = event["choices"]
        text, tokens = found.get(choice["index"], ("", []))
        tokens = [*tokens, *(choice["logprobs"] or {}).get("tokens", [])]
        found[choice["index"]] = (text + choice["text"], tokens)
    return found


async def test_usage_can_be_forced_by_the_server(engine: AsyncLLM) -> None:
    state = ready_state(engine, enable_force_include_usage=True)
    async with in_process_client(state) as client:
        for path in ("/v1/completions", "/v1/chat/completions"):
            messages = [{"role": "user", "content": PROMPT}]
            text = {"prompt": PROMPT} if path == "/v1/completions" else {"messages": messages}
            body = {**text, "max_tokens": 2, "stream": True}
            *chunks, done = events_of((await client.post(path, json=body)).text)
            assert done == "[DONE]" and all("usage" in chunk for chunk in chunks)
            assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 2)


async def test_a_stream_byte_for_byte(client: httpx.AsyncClient) -> None:
    body = {"prompt": PROMPT, **GREEDY, "max_tokens": 1, "stream": True}
    response = await client.post("/v1/completions", json=body, headers={"X-Request-Id": "a"})
    head = response.text.partition('"created":')[0]
    assert head == 'data: {"id":"cmpl-a","object":"text_completion",'
    tail = response.text.partition('"choices":')[2].partition(',"system_fingerprint"')[0]
    assert tail == (
        '[{"index":0,"text":" ","logprobs":null,"finish_reason":"length","stop_reason":null}]'
    )
    assert response.text.endswith("}\n\ndata: [DONE]\n\n")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"


async def test_usage_so_far_can_be_on_every_chunk(client: httpx.AsyncClient) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = await stream(client, stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == sorted(counts)
    assert counts[-1] == counts[-2]


async def test_log_probabilities_of_the_answer(client: httpx.AsyncClient) -> None:
    (choice,) = (await complete(client, logprobs=3))["choices"]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"][:2]) == " Paris"
    assert logprobs["text_offset"][:3] == [0, 1, 6]
    for token, value, top in zip(
        logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True
    ):
        assert len(top) == 3
        assert top[token] == value == max(top.values())
    (by_id,) = (await complete(client, logprobs=1, return_tokens_as_token_ids=True))["choices"]
    assert all(token.startswith("token_id:") for token in by_id["logprobs"]["tokens"])


async def test_echo_shows_the_prompt_and_its_log_probabilities(client: httpx.AsyncClient) -> None:
    plain = await complete(client, logprobs=1)
    echoed = await complete(client, logprobs=1, echo=True, prompt_logprobs=1)
    (choice,) = echoed["choices"]
    assert choice["text"] == PROMPT + plain["choices"][0]["text"]
    logprobs = choice["logprobs"]
    assert logprobs["token_logprobs"][0] is None
    assert logprobs["top_logprobs"][0] is None
    num_prompt = echoed["usage"]["prompt_tokens"]
    assert "".join(logprobs["tokens"][:num_prompt]) == PROMPT
    assert len(logprobs["tokens"]) == num_prompt + echoed["usage"]["completion_tokens"]
    assert choice["prompt_logprobs"][0] is None
    own = [max(one.values(), key=lambda x: -x["rank"]) for one in choice["prompt_logprobs"][1:]]
    assert all(one["rank"] == 1 for one in own)
    events = await stream(client, logprobs=1, echo=True)
    streamed = [t for event in events[:-1] for t in event["choices"][0]["logprobs"]["tokens"]]
    assert streamed == logprobs["tokens"]
    assert texts_of(events)[0] == choice["text"]


async def test_offsets_are_places_in_the_text(client: httpx.AsyncClient) -> None:
    prompt = "Say é 🙂 now"
    for prompts in ([prompt, prompt[:6]], prompt):
        body = {"prompt": prompts, "echo": True, "logprobs": 0, "return_token_ids": True}
        answer = await complete(client, **body)
        events = await stream(client, **body)
        for choice in answer["choices"]:
            sent = prompts if prompts == prompt else prompts[choice["index"]]
            places = choice["logprobs"]["text_offset"]
            assert places[len(choice["prompt_token_ids"])] == len(sent)
            own = [one["choices"][0] for one in events[:-1]]
            own = [one for one in own if one["index"] == choice["index"]]
            assert [at for one in own for at in one["logprobs"]["text_offset"]] == places


@pytest.mark.parametrize("is_stream", [False, True])
async def test_echo_of_a_cut_prompt_is_what_the_model_saw(
    client: httpx.AsyncClient, is_stream: bool
) -> None:
    body = {"echo": True, "truncate_prompt_tokens": 2, "logprobs": 0, "max_tokens": 1}
    if is_stream:
        events = await stream(client, **body)
        text, logprobs = texts_of(events)[0], events[0]["choices"][0]["logprobs"]
    else:
        (choice,) = (await complete(client, **body))["choices"]
        text, logprobs = choice["text"], choice["logprobs"]
    assert text == "".join(logprobs["tokens"])
    assert text.startswith("France is") and len(logprobs["tokens"]) == 3
    (uncut,) = (await complete(client, **{**body, "truncate_prompt_tokens": -1}))["choices"]
    assert uncut["text"].startswith(PROMPT)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_echo_alone_makes_no_token(client: httpx.AsyncClient, is_stream: bool) -> None:
    body = {"max_tokens": 0, "echo": True, "logprobs": 1}
    if is_stream:
        events = await stream(client, **body, stream_options={"include_usage": True})
        usage, text = events[-2]["usage"], texts_of(events)[0]
        tokens = events[0]["choices"][0]["logprobs"]["tokens"]
    else:
        answer = await complete(client, **body)
        usage, text = answer["usage"], answer["choices"][0]["text"]
        tokens = answer["choices"][0]["logprobs"]["tokens"]
    assert text == "".join(tokens) == PROMPT
    assert usage["completion_tokens"] == 0
    assert usage["total_tokens"] == usage["prompt_tokens"] == len(tokens)


async def test_best_of_returns_the_likeliest_and_counts_all(client: httpx.AsyncClient) -> None:
    sampling = {"temperature": 1.5, "seed": 5, "logprobs": 0, "max_tokens": 8, "ignore_eos": True}
    every = await complete(client, n=4, **sampling)
    best = await complete(client, n=2, best_of=4, **sampling)
    likely = sorted(
        (sum(choice["logprobs"]["token_logprobs"]) for choice in every["choices"]), reverse=True
    )
    found = [sum(choice["logprobs"]["token_logprobs"]) for choice in best["choices"]]
    assert found == pytest.approx(likely[:2], abs=1e-3)
    assert [choice["index"] for choice in best["choices"]] == [0, 1]
    assert best["usage"]["completion_tokens"] == 4 * 8


async def test_beams_are_all_returned(client: httpx.AsyncClient) -> None:
    answer = await complete(client, n=3, use_beam_search=True)
    texts = [choice["text"] for choice in answer["choices"]]
    assert len(set(texts)) == 3


async def test_cached_tokens_are_summed_over_prompts(client: httpx.AsyncClient) -> None:
    long = "one two three four five six seven eight nine ten " * 8
    salt = {"cache_salt": "sum"}
    first = await complete(client, prompt=[long, long + "x"], **salt)
    again = await complete(client, prompt=[long, long + "x"], **salt)
    details = again["usage"]["prompt_tokens_details"]
    assert details["cached_tokens"] > first["usage"]["prompt_tokens"] // 2
    other = await complete(client, prompt=long, cache_salt="other")
    assert other["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


async def test_a_prompt_can_be_cut(client: httpx.AsyncClient, engine: AsyncLLM) -> None:
    token_ids = engine.front.require_tokenizer().encode(PROMPT)
    for fields, expected in (
        ({"truncate_prompt_tokens": 2}, token_ids[-2:]),
        ({"truncate_prompt_tokens": 2, "truncation_side": "right"}, token_ids[:2]),
        ({"truncate_prompt_tokens": -1}, token_ids),
    ):
        answer = await complete(client, return_token_ids=True, **fields)
        assert answer["choices"][0]["prompt_token_ids"] == expected
    body = {"prompt": "x " * 4000, "truncate_prompt_tokens": -1, "ignore_eos": True}
    answer = await complete(client, **body, max_tokens=50)
    assert answer["usage"]["completion_tokens"] == 50
    assert answer["usage"]["prompt_tokens"] == engine.model_config.max_model_len - 50


async def test_max_tokens_is_clamped_to_what_remains(
    client: httpx.AsyncClient, engine: AsyncLLM
) -> None:
    most = engine.model_config.max_model_len
    body = {"prompt": [5] * (most - 3), "max_tokens": most, "ignore_eos": True}
    assert (await complete(client, **body))["usage"]["completion_tokens"] == 3
    assert (await refusal(client, max_tokens=most + 1))["param"] == "max_tokens"


async def test_the_server_can_cap_max_tokens(engine: AsyncLLM) -> None:
    async with in_process_client(ready_state(engine, max_output_tokens=2)) as client:
        answer = await complete(client, max_tokens=9, min_tokens=5, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        ({"prompt": "x " * 4000}, "prompt", "This model's maximum context length is 2048 tokens."),
        ({"temperature": 3}, "temperature", "must be a number in [0, 2], got 3.0"),
        ({"prompt": [5] * 3000}, "prompt", "has 3000 tokens"),
        ({"prompt": ["a", [1]]}, "prompt", "a list of both texts and token ids"),
        ({"top_p": 0}, "top_p", "got 0.0"),
        ({"n": 0}, "n", "from 1 to 16384"),
        ({"max_tokens": 0}, "max_tokens", "only possible with echo"),
        ({"max_tokens": -1}, "max_tokens", "at least 1"),
        ({"min_tokens": 9}, "min_tokens", "at most max_tokens=6"),
        ({"best_of": 1, "n": 2}, "best_of", "at least n=2"),
        ({"stop": ["a"] * 5}, "stop", "4 strings"),
        ({"stop": ""}, "stop", "non-empty"),
        ({"stop": 5}, "stop", "must be a string or a list of strings, got 5"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "token id"),
        ({"logit_bias": {"5000": 1}}, "logit_bias", "5000"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "-1"),
        ({"logit_bias": {" 10 ": 1}}, "logit_bias", "must be a token id, such as '10', got ' 10 '"),
        ({"logit_bias": {"1_0": 1}}, "logit_bias", "must be a token id, such as '10', got '1_0'"),
        ({"logit_bias": {"010": 1}}, "logit_bias", "must be a token id"),
        ({"logit_bias": {"\u0663": 1}}, "logit_bias", "must be a token id"),  # a three elsewhere
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias", "must be a token id"),
        (
            {"logit_bias": {"10": "100"}},
            "logit_bias",
            "the bias of 10 must be a finite number, got '100'",
        ),
        ({"logit_bias": {"10": True}}, "logit_bias", "must be a finite number, got True"),
        ({"logit_bias": dict.fromkeys(range(4097), 1)}, "logit_bias", "may have 4096 token ids"),
        ({"allowed_token_ids": [5] * 4097}, "allowed_token_ids", "vocabulary, got 4097; name each"),
        ({"stop_token_ids": [5] * 4097}, "stop_token_ids", "may have 4096 token ids"),
        ({"logit_bias": {"10": 10**400}}, "logit_bias", "must be a finite number, got 1000"),
        ({"logit_bias": [10]}, "logit_bias", "object from token ids to numbers, got [10]"),
        ({"prompt": [5, 10**6]}, "prompt", "the prompt has token id 1000000, which is outside"),
        ({"prompt": [[5], [5000]]}, "prompt", "prompts[1] has token id 5000"),
        ({"prompt": [[5], [-1]]}, "prompt", "-1"),
        ({"allowed_token_ids": []}, "allowed_token_ids", "non-empty"),
        ({"logprobs": 21}, "logprobs", "20"),
        ({"cache_salt": "a/b"}, "cache_salt", "none of them"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "from 1 to 2048"),
        ({"truncate_prompt_tokens": 2049}, "truncate_prompt_tokens", "from 1 to 2048"),
        ({"priority": 1}, "priority", "scheduling_policy"),
        ({"stream": True, "use_beam_search": True}, "use_beam_search", "Beam search"),
        ({"stream": True, "best_of": 2}, "best_of", "cannot be streamed"),
        ({"stream": True, "prompt_logprobs": 1}, "prompt_logprobs", "cannot be streamed"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options",
            "without include_usage",
        ),
        ({"timeout_s": 0}, "timeout_s", "greater than 0"),
        ({"echo": True, "suffix": "a"}, "suffix", "echo and suffix"),
    ],
)
async def test_a_wrong_field_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], param: str | None, message: str
) -> None:
    error = await refusal(client, **body)
    assert message in error["message"]
    assert (error["param"], error["code"]) == (param, 400)


async def test_the_whole_vocabulary_may_be_named(client: httpx.AsyncClient) -> None:
    every = list(range(4096))
    answer = await complete(client, allowed_token_ids=every, logit_bias=dict.fromkeys(every, 1))
    assert answer["choices"][0]["text"] == (await complete(client))["choices"][0]["text"]


async def test_a_model_that_is_not_served_is_404(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/completions", json={"prompt": "x", "model": "gpt-9"})
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["param"], error["type"]) == ("model", "NotFoundError")
    assert "`gpt-9` does not exist" in error["message"]


async def test_values_of_other_clients_are_understood(client: httpx.AsyncClient) -> None:
    bias = {"logit_bias": {"300": 200}, "max_tokens": 2, "return_token_ids": True}
    answer = await complete(client, **bias)
    assert answer["choices"][0]["token_ids"] == [300, 300]
    assert (await complete(client, seed=-1, top_k=-1, stop=None, n=None))["choices"]
    assert len((await complete(client, max_tokens=None, ignore_eos=True))["choices"]) == 1


async def test_the_body_may_bring_a_request_id(client: httpx.AsyncClient) -> None:
    assert (await complete(client, request_id="own"))["id"] == "cmpl-own"
    response = await client.post(
        "/v1/completions",
        json={"prompt": PROMPT, "max_tokens": 1, "request_id": "own"},
        headers={"X-Request-Id": "header"},
    )
    assert response.json()["id"] == "cmpl-header"
