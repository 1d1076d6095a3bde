"""Prompts that are far too long cost no more than their beginning, and are cut as a whole is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.engine.input_processor import InputProcessor
from quire.prompts import ParsedPrompt
from quire.server.args import ServerArgs
from quire.server.errors import HTTPError, PromptTooLong
from quire.server.prompt_tokens import PromptRules, Side, kept_tokens, ready_prompts
from quire.server.protocol.chat import ChatCompletionRequest
from quire.server.protocol.completions import CompletionRequest
from quire.server.sampling_fields import chat_params, completion_params
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
    ("fields", "limit", "of_completions", "of_chat"),
    [
        ({}, None, 16, 1),
        ({}, 40, 16, 40),
        ({}, 10_000, 16, 1),  # more than the context: as good as no limit
        ({"max_tokens": 2048}, None, 1, 1),  # the context
        ({"max_tokens": 7, "min_tokens": 3}, None, 7, 7),
        ({"max_tokens": 7}, 5, 5, 5),
        ({"min_tokens": 3}, None, 16, 3),
    ],
)
def test_a_truncated_prompt_leaves_room_for_the_answer(
    engine: AsyncLLM, fields: dict[str, Any], limit: int | None, of_completions: int, of_chat: int
) -> None:
    args, cut = ServerArgs(max_output_tokens=limit), {"truncate_prompt_tokens": -1}
    text = CompletionRequest(prompt="a", **cut, **fields)
    rules = PromptRules.of(text, completion_params(text, engine, args), "prompt")
    context = engine.model_config.max_model_len
    assert kept_tokens(engine, rules) == context - of_completions
    chat = ChatCompletionRequest(messages=[{"role": "user", "content": "a"}], **cut, **fields)
    rules = PromptRules.of(chat, chat_params(chat, engine, args), "messages")
    assert kept_tokens(engine, rules) == context - of_chat


def test_a_prompt_is_cut_on_the_side_that_rules_name() -> None:
    engine, _ = engine_with(tokenizers.byte_level())
    token_ids = list(range(100))
    for side, kept in (("left", token_ids[-40:]), ("right", token_ids[:40])):
        rules = PromptRules(kept_tokens=-1, answer_tokens=CONTEXT - 40, side=cast(Side, side))
        (fitted,) = ready_prompts(engine, [ParsedPrompt(token_ids=token_ids)], rules)
        assert fitted.token_ids == kept


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
