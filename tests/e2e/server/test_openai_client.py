"""The official ``openai`` client against `quire serve` with the bundled model."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.fakes.server import ANSWER, MODEL, QUESTION
from tests.fakes.waiting import wait_until


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "quire"


def test_completions_with_samples_and_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="The capital of France is", n=2, logprobs=3, max_tokens=4, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert choice.text.startswith(" Paris")
        assert choice.logprobs is not None
        assert choice.logprobs.tokens is not None
        assert "".join(choice.logprobs.tokens).startswith(" Paris")
        assert choice.logprobs.top_logprobs is not None
        assert all(len(top) >= 3 for top in choice.logprobs.top_logprobs)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens_details is not None


def test_chat_with_history(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "You are helpful."},
            {"role": "user", "content": "What is 3 plus 4?"},
            {"role": "assistant", "content": "3 plus 4 is 7."},
            {"role": "user", "content": QUESTION},
        ],
        temperature=0,
        user="somebody",
        store=False,
        logprobs=True,
        top_logprobs=2,
    )
    (choice,) = answer.choices
    assert choice.message.content == ANSWER
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    # The last token ends the answer and has no text in it.
    spelled = b"".join(bytes(one.bytes or ()) for one in choice.logprobs.content[:-1])
    assert spelled.decode() == ANSWER


def test_streams(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(one.choices[0].delta.content or "" for one in chunks[:-1])
    assert text == ANSWER
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    pieces = client.completions.create(
        model=MODEL, prompt="The capital of France is", max_tokens=3, temperature=0, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces).startswith(" Paris")


async def test_many_streams_at_once(server_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server_url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            n=8,
            stream=True,
        )
        texts = [""] * 8
        async for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [ANSWER] * 8


def metric(url: str, name: str, *labels: str) -> float:
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    (line,) = [x for x in lines if x.startswith(f"quire:{name}{{") and all(y in x for y in labels)]
    return float(line.split()[-1])


def test_a_stream_that_is_left_ends_in_the_engine(client: openai.OpenAI, server_url: str) -> None:
    most = 1500

    def ended() -> tuple[float, float]:
        aborted = metric(server_url, "request_success_total", 'finished_reason="abort"')
        return aborted, metric(server_url, "request_generation_tokens_sum")

    aborted_before, tokens_before = ended()
    stream = client.completions.create(
        model=MODEL,
        prompt="x",
        max_tokens=most,
        stream=True,
        extra_body={"ignore_eos": True, "request_id": "left"},
    )
    next(iter(stream))
    stream.close()
    wait_until(lambda: httpx.get(f"{server_url}/v1/requests").json()["data"] == [])
    aborted, tokens = ended()
    assert aborted == aborted_before + 1  # and not "length": it did not run on to its own end
    assert 1 <= tokens - tokens_before < most / 2


def test_the_request_id_goes_there_and_back(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=1,
        extra_headers={"X-Request-Id": "my-own-id"},
    )
    assert raw.headers["x-request-id"] == "my-own-id"
    assert raw.parse().id == "chatcmpl-my-own-id"


def test_errors_are_the_clients_own_kinds(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="`gpt-9` does not exist") as missing:
        client.completions.create(model="gpt-9", prompt="x")
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="maximum context length is"):
        client.completions.create(model=MODEL, prompt="x " * 5000)
    with pytest.raises(openai.BadRequestError, match="temperature must be a number in"):
        client.completions.create(model=MODEL, prompt="x", temperature=3)


@pytest.mark.parametrize("is_stream", [False, True])
def test_what_no_text_can_follow_is_the_requests_own_fault(
    client: openai.OpenAI, is_stream: bool
) -> None:
    """Found at the first token; clients do not send such a request again."""
    contradiction = {"structured_outputs": {"choice": ["a"]}, "bad_words": ["a"]}
    with pytest.raises(openai.BadRequestError, match="left no token that its grammar allows"):
        client.completions.create(
            model=MODEL, prompt="Say a", stream=is_stream, extra_body=contradiction
        )
