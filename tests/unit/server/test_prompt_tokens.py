"""Prompts that are far too long cost no more than their beginning, and are cut as a whole is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.engine.input_processor import InputProcessor
from quire.prompts import ParsedPrompt
from quire.server.errors import HTTPError, PromptTooLong
from quire.server.prompt_tokens import PromptRules, Side, ready_prompts
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.completions import CompletionRequest
from quire.tokenizer.vocabulary import Vocabulary
from tests.fakes import tokenizers
from tests.fakes.configs import fake_config

CONTEXT = 50
TEXT = "The capital of France is Paris, and numbers 1234567890 are no cats. 你好世界。 " * 200
FAMILIES = [
    tokenizers.byte_level,
    tokenizers.byte_fallback,
    tokenizers.unigram,
    tokenizers.word_piece,
]


class CountingInputs(InputProcessor):
    """Notes how many characters it was asked to tokenize."""

    num_chars = 0

    def tokenize_all(self, prompts: Any) -> list[ParsedPrompt]:
        self.num_chars += sum(len(one.text or "") for one in prompts if one.token_ids is None)
        return super().tokenize_all(prompts)


def engine_with(tokenizer: Any) -> tuple[AsyncLLM, CountingInputs]:
    inputs = CountingInputs(fake_config().model, Vocabulary(tokenizer), ())
    model_config = SimpleNamespace(max_model_len=CONTEXT, get_vocab_size=lambda: len(tokenizer))
    engine = SimpleNamespace(front=SimpleNamespace(inputs=inputs), model_config=model_config)
    return cast(AsyncLLM, engine), inputs


def test_a_text_that_cannot_fit_is_not_read_to_its_end() -> None:
    engine, inputs = engine_with(tokenizers.byte_level())
    with pytest.raises(HTTPError, match="maximum context length is 50 tokens") as raised:
        ready_prompts(engine, [ParsedPrompt(text=TEXT * 100)], PromptRules())
    assert "has at least" in raised.value.message
    assert inputs.num_chars <= 16 * CONTEXT


@pytest.mark.parametrize(("name", "subject"), [("the prompt", "it"), ("prompt[1]", "prompt[1]")])
def test_a_prompt_without_room_for_an_answer_is_told_what_clients_look_for(
    name: str, subject: str
) -> None:
    engine, _ = engine_with(tokenizers.byte_level())
    prompt = ParsedPrompt(token_ids=[5] * CONTEXT, name=name)
    with pytest.raises(PromptTooLong) as raised:
        ready_prompts(engine, [prompt], PromptRules())
    assert raised.value.message.startswith(
        "This model's maximum context length is 50 tokens. However, the prompt is too long: "
        f"{subject} has 50 tokens, "
    )
    assert (raised.value.num_tokens, raised.value.most_tokens) == (50, 49)


@pytest.mark.parametrize(
    ("fields", "of_completions", "of_chat"),
    [
        ({}, 16, 1),
        ({"max_tokens": 7, "min_tokens": 3}, 7, 7),
        ({"min_tokens": 3}, 16, 3),
        ({"max_tokens": 0, "echo": True}, 1, 1),
        ({"max_completion_tokens": 9, "max_tokens": 7}, 7, 9),
    ],
)
def test_a_truncated_prompt_leaves_room_for_the_answer(
    fields: dict[str, Any], of_completions: int, of_chat: int
) -> None:
    engine, _ = engine_with(tokenizers.byte_level())
    bodies = (
        CompletionRequest(prompt="a", truncate_prompt_tokens=-1, **fields),
        ChatCompletionRequest(
            messages=[{"role": "user", "content": "a"}], truncate_prompt_tokens=-1, **fields
        ),
    )
    for body, num_left in zip(bodies, (of_completions, of_chat), strict=True):
        prompt = ParsedPrompt(token_ids=list(range(100)))
        (fitted,) = ready_prompts(engine, [prompt], PromptRules.of(body, "prompt"))
        assert fitted.token_ids == list(range(100))[num_left - CONTEXT :]


def test_a_text_of_few_tokens_is_read_as_far_as_needed() -> None:
    tokenizer = tokenizers.word_piece()
    text = f"{'z' * 200} " * 20  # each of these words is one unknown token
    assert len(text) > 4 * 16 * CONTEXT
    engine, _ = engine_with(tokenizer)
    (whole,) = ready_prompts(engine, [ParsedPrompt(text=text)], PromptRules())
    assert whole.token_ids == tokenizer.encode(text) and whole.text == text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_text_is_cut_as_its_tokens_are(family: Any, side: Side) -> None:
    tokenizer = family()
    engine, inputs = engine_with(tokenizer)
    rules = PromptRules(kept_tokens=CONTEXT - 1, side=side)
    (prompt,) = ready_prompts(engine, [ParsedPrompt(text=TEXT)], rules)
    every = tokenizer.encode(TEXT)
    first = every[: every[0] == tokenizer.bos_token_id]
    last = every[len(every) - (every[-1] == tokenizer.eos_token_id) :]
    inner = every[len(first) : len(every) - len(last)]
    room = CONTEXT - 1 - len(first) - len(last)
    kept = inner[-room:] if side == "left" else inner[:room]
    assert prompt.token_ids == [*first, *kept, *last]
    assert prompt.text is None
    assert inputs.num_chars < len(TEXT)
