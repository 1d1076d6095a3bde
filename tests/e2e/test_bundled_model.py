"""The bundled model through Quire: word for word what transformers makes of it, and what a newcomer
sees in the demo."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaForCausalLM

from quire import LLM, SamplingParams
from quire.assets import TINY_CHAT
from quire.tools import CallArguments, CallBegin, Tools, tool_format
from tests.fakes import weather
from tests.models.reference import Reference, up_to_stop
from tools.train_tiny.chatml import prompt_and_answer
from tools.train_tiny.corpus import mixture

NUM_PROMPTS = 200
MAX_TOKENS = 48
LONGEST_PROMPT = 1500  # characters
STOPS = (0, 2)
BATCH = 40
GREEDY = SamplingParams(temperature=0, max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def float32() -> Iterator[LLM]:
    with LLM(dtype="float32", device="cpu", max_num_seqs=64) as llm:
        yield llm


def test_a_tool_call_offline(float32: LLM) -> None:
    messages = [{"role": "user", "content": weather.QUESTION}]
    (output,) = float32.chat(messages, GREEDY, tools=[weather.TOOL], use_tqdm=False)
    parser = tool_format("hermes").parser(Tools.of([weather.TOOL]))
    events = parser.feed(output.outputs[0].text) + parser.finish()
    assert isinstance(events[0], CallBegin) and events[0].name == "get_weather"
    assert isinstance(events[1], CallArguments)
    assert json.loads(events[1].json_fragment) == weather.ARGUMENTS


@pytest.fixture(scope="module")
def chat() -> Iterator[LLM]:
    """As the demo opens it."""
    with LLM(device="cpu") as llm:
        yield llm


def varied_prompts() -> list[str]:
    """Questions of every skill of the model, in turn, that its training has not seen."""
    random = Random(20)
    prompts: dict[str, None] = {}
    for skill in itertools.cycle(mixture.SKILLS):
        prompt = prompt_and_answer(mixture.question(random, skill))[0]
        if len(prompt) <= LONGEST_PROMPT:
            prompts[prompt] = None
        if len(prompts) == NUM_PROMPTS:
            return list(prompts)
    raise AssertionError


def transformers_answers(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens of each prompt; prompts of like length share a padded batch."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers: dict[int, list[int]] = {}
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        longest = max(len(prompts[index]) for index in chosen)
        padding = [longest - len(prompts[index]) for index in chosen]
        rows = [[0] * pad + prompts[index] for index, pad in zip(chosen, padding, strict=True)]
        mask = torch.arange(longest)[None, :] >= torch.tensor(padding)[:, None]
        with torch.inference_mode():
            found = model.generate(
                torch.tensor(rows),
                attention_mask=mask.long(),
                do_sample=False,
                max_new_tokens=MAX_TOKENS,
            )
        for index, row in zip(chosen, found[:, longest:].tolist(), strict=True):
            answers[index] = up_to_stop(row, STOPS)
    return [answers[index] for index in range(len(prompts))]


def test_greedy_text_of_200_prompts_equals_transformers(float32: LLM) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY_CHAT)
    model = LlamaForCausalLM.from_pretrained(TINY_CHAT, dtype=torch.float32).eval()
    prompts = varied_prompts()
    outputs = float32.generate(prompts, GREEDY, use_tqdm=False)
    token_ids = tokenizer(prompts)["input_ids"]
    assert [output.prompt_token_ids for output in outputs] == token_ids
    expected = transformers_answers(model, token_ids)
    reference = Reference(model)
    num_ended = 0
    for output, tokens in zip(outputs, expected, strict=True):
        (completion,) = output.outputs
        num_ended += completion.finish_reason == "stop"
        if list(completion.token_ids) != tokens:  # only where two tokens are equally likely
            reference.check(output, GREEDY)
            continue
        assert completion.text == tokenizer.decode(tokens, skip_special_tokens=True)
        assert completion.finish_reason == ("stop" if tokens[-1] in STOPS else "length")
    assert num_ended > NUM_PROMPTS / 2
    assert len({output.outputs[0].text for output in outputs}) > NUM_PROMPTS / 2


def test_dozens_of_preemptions_change_no_word(float32: LLM) -> None:
    prompts = [prompt for prompt in varied_prompts() if len(prompt) < 90][:30]
    params = SamplingParams(temperature=0, max_tokens=64, ignore_eos=True)
    expected = float32.generate(prompts, params, use_tqdm=False)
    limits: dict[str, Any] = {"max_model_len": 160, "num_gpu_blocks_override": 28}
    with LLM(dtype="float32", device="cpu", block_size=8, steps_in_flight=2, **limits) as tight:
        found = tight.generate(prompts, params, use_tqdm=False)
        stats = tight.stats()
    assert stats.num_preemptions >= 36
    assert stats.num_free_blocks == stats.num_blocks - 1
    assert [one.outputs[0].text for one in found] == [one.outputs[0].text for one in expected]


def test_the_capital_of_france_is_paris(chat: LLM) -> None:
    (output,) = chat.generate("The capital of France is", GREEDY, use_tqdm=False)
    assert "Paris" in output.outputs[0].text


def test_a_chat_remembers_a_name(chat: LLM) -> None:
    messages = [{"role": "user", "content": "My name is Alia."}]
    (first,) = chat.chat(messages, GREEDY, use_tqdm=False)
    messages += [
        {"role": "assistant", "content": first.outputs[0].text},
        {"role": "user", "content": "What is my name?"},
    ]
    (second,) = chat.chat(messages, GREEDY, use_tqdm=False)
    assert "Alia" in second.outputs[0].text
    assert second.outputs[0].finish_reason == "stop"
    assert second.num_cached_tokens and second.num_cached_tokens >= 16
