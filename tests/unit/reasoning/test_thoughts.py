"""Whether a prompt that is no conversation leaves a thought open."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from quire.assets import TINY_CHAT
from quire.prompts import ParsedPrompt
from quire.reasoning import Thoughts, reasoning_format
from quire.sampling_params import SamplingParams

CONSTRAINED = SamplingParams(structured_outputs={"choice": ["yes", "no"]})
LIMITED = SamplingParams(thinking_token_budget=5)
BOTH = [
    SamplingParams(structured_outputs={"choice": ["yes", "no"]}, thinking_token_budget=budget)
    for budget in (-1, 0, 5)
]


@pytest.fixture(scope="module")
def thoughts() -> Thoughts:
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHAT)
    return Thoughts.of(reasoning_format("tags:<why>,</why>"), tokenizer)


@pytest.mark.parametrize(
    "prompt",
    [
        "<why>",
        "<why>Let",
        "Q?\n<why>\nIt is so\nthat",
        "Answer: <why>",
        "<|im_start|>assistant\n<why> Let",
        "<why>a</why>b\n<why>c",
    ],
)
def test_a_grammar_waits_for_the_end_of_an_open_thought(prompt: str, thoughts: Thoughts) -> None:
    for params in (CONSTRAINED, *BOTH):
        thinking = thoughts.after_raw(ParsedPrompt(text=prompt), params)
        assert thinking is not None and thinking.is_open


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "Is it?",
        "What does the tag <why> mean?\nAnswer:",
        "<why>a</why>",
        "<why>a</why> yes, <why> is a tag",
        "<why>Let<|im_end|>\n<|im_start|>assistant\n",
    ],
)
def test_other_prompts_are_followed_by_the_grammar_at_once(prompt: str, thoughts: Thoughts) -> None:
    for params in (CONSTRAINED, *BOTH):
        thinking = thoughts.after_raw(ParsedPrompt(text=prompt), params)
        assert thinking is not None and thinking.is_open is False
    limited = thoughts.after_raw(ParsedPrompt(text=prompt), LIMITED)
    assert limited is not None and not limited.is_open


def test_a_grammar_of_a_format_that_usually_thinks_begins_at_once_too() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHAT)
    usual = Thoughts.of(reasoning_format("deepseek_r1"), tokenizer)
    for params in (CONSTRAINED, *BOTH):
        thinking = usual.after_raw(ParsedPrompt(text="Is it?"), params)
        assert thinking is not None and thinking.is_open is False
    limited = usual.after_raw(ParsedPrompt(text="Is it?"), LIMITED)
    assert limited is not None and limited.is_open
