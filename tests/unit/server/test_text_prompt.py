"""Prompts of completions: their forms, and gaps between two texts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from transformers import PreTrainedTokenizerFast

from quire.engine.async_engine import AsyncLLM
from quire.engine.input_processor import InputProcessor
from quire.server.errors import HTTPError
from quire.server.prompt_tokens import PromptRules
from quire.server.protocol.completions import CompletionRequest
from quire.server.text_prompt import GAP_TOKENS, GapTokens, completion_prompts
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes import tokenizers
from tests.fakes.configs import fake_config


def engine_with(tokenizer: Any, max_model_len: int = 1000) -> AsyncLLM:
    """As much of an engine as prompts need."""
    inputs = InputProcessor(fake_config().model, Vocabulary(tokenizer), ())
    front = SimpleNamespace(inputs=inputs, require_tokenizer=lambda: tokenizer)
    model_config = SimpleNamespace(max_model_len=max_model_len)
    return cast(AsyncLLM, SimpleNamespace(front=front, model_config=model_config))


def with_gap_tokens(marks: GapTokens) -> PreTrainedTokenizerFast:
    plain = tokenizers.byte_level()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain.backend_tokenizer)
    tokenizer.add_tokens([marks.prefix, marks.suffix, marks.middle], special_tokens=True)
    return tokenizer


@pytest.mark.parametrize("marks", GAP_TOKENS)
def test_a_suffix_makes_a_gap_between_two_texts(marks: GapTokens) -> None:
    tokenizer = with_gap_tokens(marks)
    body = CompletionRequest(prompt=["def f", "x"], suffix=" return")
    prompts = completion_prompts(engine_with(tokenizer), body, PromptRules())
    for text, prompt in zip(("def f", "x"), prompts, strict=True):
        assert prompt.text == text
        pieces = [marks.prefix, text, marks.suffix, " return", marks.middle]
        expected = [i for piece in pieces for i in tokenizer.encode(piece)]
        assert prompt.token_ids == expected


def test_a_gap_is_never_cut() -> None:
    tokenizer = with_gap_tokens(GAP_TOKENS[0])
    engine = engine_with(tokenizer)
    fields = {"prompt": ["x", "def f(x)"], "suffix": " return"}
    body = CompletionRequest(**fields)
    whole = completion_prompts(engine, body, PromptRules())
    most = max(len(prompt.token_ids or ()) for prompt in whole)
    for kept in (-1, most):
        assert completion_prompts(engine, body, PromptRules(kept_tokens=kept)) == whole
    with pytest.raises(HTTPError) as raised:
        completion_prompts(engine, body, PromptRules(kept_tokens=most - 1))
    assert raised.value.param == "truncate_prompt_tokens"
    assert raised.value.message == (
        f"truncate_prompt_tokens keeps {most - 1} tokens, but prompts[1] has {most} with its "
        "suffix, and such a prompt cannot be cut; shorten prompt or suffix, or leave "
        "truncate_prompt_tokens out."
    )


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, "prompt must be a string"),
        (3, "prompt must be a string"),
        ([], "prompt is an empty list"),
        ("", "the prompt is empty"),
        (["a", ""], r"prompts[1] is empty"),
        ([[1], []], "prompts[1]: a prompt has no token ids"),
        ([1, "a"], "a list that contains a str"),
        ([1, 2.5], "a list that contains a float"),
        ([True], "a list that contains a bool"),
        ([{"prompt": "a"}], "a list that contains a dict"),
        ([-1], "negative"),
        ([4096], "outside the vocabulary"),
        (["a"] * 1025, "1025 prompts, but a request may have 1024"),
    ],
)
async def test_a_wrong_prompt_is_one_clear_error(
    client: httpx.AsyncClient, prompt: object, message: str
) -> None:
    response = await client.post("/v1/completions", json={"prompt": prompt})
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


async def test_a_suffix_needs_a_model_that_can_fill_gaps(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/completions", json={"prompt": "a", "suffix": "b"})
    assert response.status_code == 400
    assert "fill-in-the-middle" in response.json()["error"]["message"]
    empty = await client.post(
        "/v1/completions", json={"prompt": "a", "suffix": "", "max_tokens": 1}
    )
    assert empty.status_code == 200
