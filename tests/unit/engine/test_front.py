"""The text side of an engine is made for the model at hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from quire.chat_template import ChatRenderer
from quire.config import ModelConfig
from quire.engine.front import Front, load_front_tokenizer
from quire.prompts import ParsedPrompt
from quire.sampling_params import SamplingParams, StructuredOutputsParams
from quire.structured import Thinking, TokenMark
from quire.tokenizer.families import TIKTOKEN_FAMILIES
from tests.fakes.byte_tokenizer import VOCAB_SIZE
from tests.fakes.configs import FAKE_FACTS, fake_config
from tests.unit.tokenizer.vocabularies import tiktoken_ranks, write_tiktoken


def test_tokenizer_without_template_gets_that_of_the_family(tmp_path: Path) -> None:
    ranks = tiktoken_ranks(TIKTOKEN_FAMILIES["QWenTokenizer"].pattern)
    write_tiktoken(tmp_path / "qwen.tiktoken", ranks)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen"}))
    config = ModelConfig(
        model="qwen/Qwen-7B-Chat",
        path=tmp_path,
        tokenizer=tmp_path,
        hf_config={"model_type": "qwen"},
        generation_config={},
        architecture="QWenLMHeadModel",
        dtype="float32",
        max_model_len=20,
        vocab_size=700,
    )
    tokenizer = load_front_tokenizer(config)
    assert tokenizer is not None
    prompt = ChatRenderer(tokenizer).render([{"role": "user", "content": "hello"}])
    ids = tokenizer.encode(prompt.text, add_special_tokens=False)
    assert ids.count(tokenizer.im_start_id) == 3 and ids.count(tokenizer.im_end_id) == 2
    assert prompt.ends == ("<|im_end|>", "<|endoftext|>")


def test_defaults_of_a_generation_config_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="quire"):
        Front(fake_config(), FAKE_FACTS, None)
        assert "default sampling parameters" not in caplog.text
        generation_config = {"temperature": 0.6, "presence_penalty": 1.5, "eos_token_id": 3}
        Front(fake_config(generation_config=generation_config), FAKE_FACTS, None)
    assert "parameters of this model: temperature=0.6, presence_penalty=1.5\n" in caplog.text


CHOICE = SamplingParams(structured_outputs=StructuredOutputsParams(choice=["yes", "no"]))


def front_of(folder: Path, *, skip_tokenizer_init: bool = False) -> Front:
    """Its model has a few more logits than the tokenizer has tokens."""
    config = fake_config(
        folder=folder, skip_tokenizer_init=skip_tokenizer_init, vocab_size=VOCAB_SIZE + 2
    )
    return Front(config, FAKE_FACTS, load_front_tokenizer(config.model))


def test_grammars_are_refused_for_a_tokenizer_that_the_core_does_not_know(
    byte_tokenizer: Path,
) -> None:
    front = front_of(byte_tokenizer)
    front.process("a", ParsedPrompt(text="x"), CHOICE)
    other = AutoTokenizer.from_pretrained(byte_tokenizer)
    front.set_tokenizer(other)
    front.process("b", ParsedPrompt(text="x"), CHOICE)  # it has the same tokens
    more = AutoTokenizer.from_pretrained(byte_tokenizer)
    more.add_tokens(["yes"])
    front.set_tokenizer(more)
    with pytest.raises(ValueError, match=r"structured_outputs cannot .* \(tokenizer=\.\.\.\), or"):
        front.process("c", ParsedPrompt(text="x"), CHOICE)
    front.process("d", ParsedPrompt(text="x"), SamplingParams())
    front.set_tokenizer(other)
    front.process("e", ParsedPrompt(text="x"), CHOICE)


async def test_grammars_are_refused_beside_others_too(byte_tokenizer: Path) -> None:
    front = front_of(byte_tokenizer, skip_tokenizer_init=True)
    front.set_tokenizer(AutoTokenizer.from_pretrained(byte_tokenizer))
    assert CHOICE.grammar is not None
    with pytest.raises(ValueError, match=r"structured_outputs cannot .* \(tokenizer="):
        await front.inputs.verify_beside(CHOICE.grammar)


def test_thoughts_are_not_measured_by_tokens_that_the_core_does_not_know(
    byte_tokenizer: Path,
) -> None:
    front = front_of(byte_tokenizer)
    end = TokenMark(text=b"x", token_ids=(3,))
    prompt = ParsedPrompt(text="x", thinking=Thinking(begins=(), ends=(end,), is_open=True))
    params = SamplingParams(thinking_token_budget=2)
    front.process("a", prompt, params)
    more = AutoTokenizer.from_pretrained(byte_tokenizer)
    more.add_tokens(["yes"])
    front.set_tokenizer(more)
    with pytest.raises(ValueError, match="thinking_token_budget cannot be used"):
        front.process("b", prompt, params)
    front.process("c", prompt, SamplingParams())


def test_seeds_go_on_when_the_tokenizer_is_replaced(byte_tokenizer: Path) -> None:
    front = front_of(byte_tokenizer)
    seeds = []
    for i in range(4):
        request = front.process(str(i), ParsedPrompt(text="x"), SamplingParams())
        seeds.append(request.engine.sampling.seed)
        front.set_tokenizer(AutoTokenizer.from_pretrained(byte_tokenizer))
    assert len(set(seeds)) == 4
    again = front_of(byte_tokenizer).process("0", ParsedPrompt(text="x"), SamplingParams())
    assert again.engine.sampling.seed == seeds[0]


def test_front_ends_of_one_server_have_seeds_of_their_own() -> None:
    def seeds(number: int) -> list[int]:
        front = Front(fake_config(), FAKE_FACTS, None, number)
        prompt = ParsedPrompt(token_ids=[1])
        made = [front.process(str(i), prompt, SamplingParams()) for i in range(4)]
        return [one.engine.sampling.seed for one in made]

    assert seeds(0) == seeds(0)
    assert len({*seeds(0), *seeds(1), *seeds(2)}) == 12
