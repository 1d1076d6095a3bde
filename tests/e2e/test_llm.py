"""The whole engine from text to text, with a small random Llama, against transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from quire import LLM, AsyncLLMEngine, EngineArgs, LLMEngine, SamplingParams
from quire.errors import ModelLoadError
from quire.sampling_params import BeamSearchParams
from tests.fakes.byte_tokenizer import EOS_ID, VOCAB_SIZE, save_byte_tokenizer
from tests.fakes.tokenizers import capital_letters

PROMPTS = ["Hello", "The capital of France is", "x", "Größe 大小", "a longer prompt " * 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=128,
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=256,
        initializer_range=0.2,  # sharp enough that greedy texts do not repeat one token
        bos_token_id=1,
        eos_token_id=EOS_ID,
        pad_token_id=0,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    save_byte_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def llm(folder: Path) -> Iterator[LLM]:
    with LLM(model=str(folder), dtype="float32", max_num_seqs=8, device="cpu") as made:
        yield made


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    return transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def reference_tokens(reference: Any, prompt: list[int], **options: object) -> list[list[int]]:
    """Generated tokens without what follows the first EOS."""
    with torch.inference_mode():
        rows = reference.generate(torch.tensor([prompt]), do_sample=False, **options)
    return [_up_to_eos(row[len(prompt) :]) for row in rows.tolist()]


def _up_to_eos(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS_ID) + 1] if EOS_ID in tokens else tokens


def test_greedy_text_equals_transformers(llm: LLM, reference: Any) -> None:
    outputs = llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=24), use_tqdm=False)
    tokenizer = llm.get_tokenizer()
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        (expected,) = reference_tokens(reference, tokenizer.encode(prompt), max_new_tokens=24)
        assert list(output.outputs[0].token_ids) == expected
        assert output.outputs[0].text == tokenizer.decode(expected, skip_special_tokens=True)
        ended = expected[-1] == EOS_ID
        assert output.outputs[0].finish_reason == ("stop" if ended else "length")


def test_beams_equal_transformers(llm: LLM, reference: Any) -> None:
    prompt = llm.get_tokenizer().encode("Hello")
    params = BeamSearchParams(beam_width=3, max_tokens=8)
    (found,) = llm.beam_search([{"prompt_token_ids": prompt}], params)
    expected = reference_tokens(
        reference, prompt, num_beams=3, num_return_sequences=3, max_new_tokens=8
    )
    assert [beam.tokens[len(prompt) :] for beam in found.sequences] == expected


def test_streamed_text_equals_generated_text(llm: LLM) -> None:
    params = SamplingParams(temperature=1.0, seed=7, max_tokens=24, n=2)
    generated = llm.generate(PROMPTS, params, use_tqdm=False)
    streamed: dict[tuple[int, int], str] = {}
    for output in llm.stream(PROMPTS, params):
        for piece in output.outputs:
            key = (int(output.request_id), piece.index)
            streamed[key] = streamed.get(key, "") + piece.text
    assert [streamed[key] for key in sorted(streamed)] == [
        completion.text for output in generated for completion in output.outputs
    ]


@pytest.mark.parametrize("model", ["BPE", "WordLevel"])
def test_model_of_capital_letters_reads_and_writes_them(model: str, tmp_path: Path) -> None:
    tokenizer = capital_letters(model)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    params = SamplingParams(temperature=0.0, max_tokens=12, logprobs=1, ignore_eos=True)
    with LLM(model=str(tmp_path), dtype="float32", device="cpu") as llm:
        (output,) = llm.generate("MKV1", params)
        streamed = "".join(piece.outputs[0].text for piece in llm.stream("MKV1", params))
    found = output.outputs[0]
    assert output.prompt_token_ids == tokenizer.convert_tokens_to_ids(list("MKV1"))
    assert found.text == streamed == tokenizer.decode(found.token_ids, skip_special_tokens=True)
    assert found.text.isupper()
    letters = [next(iter(place.values())).decoded_token for place in found.logprobs or []]
    assert letters == tokenizer.convert_ids_to_tokens(found.token_ids)


def test_engine_in_another_process_gives_the_same(llm: LLM, folder: Path) -> None:
    params = SamplingParams(temperature=0.8, seed=3, max_tokens=12, logprobs=2, prompt_logprobs=1)
    here = llm.generate(PROMPTS, params, use_tqdm=False)
    with LLM(
        model=str(folder), dtype="float32", device="cpu", multiprocess_mode=True, max_num_seqs=8
    ) as other:
        there = other.generate(PROMPTS, params, use_tqdm=False)
        named = SamplingParams(
            max_tokens=3, logits_processors=["tests.fakes.processors.favour_four"]
        )
        (favoured,) = other.generate("Hello", named, use_tqdm=False)
        assert list(favoured.outputs[0].token_ids) == [4, 4, 4]
        assert other.stats().num_running == 0
        assert other.llm_engine.facts.num_blocks == llm.llm_engine.facts.num_blocks
    for a, b in zip(here, there, strict=True):
        assert a.prompt_logprobs == b.prompt_logprobs
        assert a.outputs[0].logprobs == b.outputs[0].logprobs
        assert a.outputs[0].text == b.outputs[0].text


def test_async_engine_gives_the_same(llm: LLM, folder: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    here = [o.outputs[0].text for o in llm.generate(PROMPTS, params, use_tqdm=False)]
    engine = AsyncLLMEngine.from_engine_args(
        EngineArgs(model=str(folder), dtype="float32", device="cpu", max_num_seqs=8),
        multiprocess_mode=False,
    )

    async def last_text(index: int, prompt: str) -> str:
        async for output in engine.generate(prompt, params, f"request {index}"):
            text = output.outputs[0].text
        return text

    async def all_texts() -> list[str]:
        return await asyncio.gather(*(last_text(i, prompt) for i, prompt in enumerate(PROMPTS)))

    assert asyncio.run(all_texts()) == here
    engine.shutdown()


def test_step_driven_engine_gives_the_same(llm: LLM, folder: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    here = [o.outputs[0].text for o in llm.generate(PROMPTS, params, use_tqdm=False)]
    engine = LLMEngine.from_engine_args(
        EngineArgs(model=str(folder), dtype="float32", device="cpu", max_num_seqs=2)
    )
    for index, prompt in enumerate(PROMPTS):
        engine.add_request(str(index), prompt, params)
    texts: dict[int, str] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            texts[int(output.request_id)] = output.outputs[0].text
    assert [texts[index] for index in sorted(texts)] == here
    engine.close()


def test_second_turn_of_a_chat_reuses_the_first(llm: LLM) -> None:
    messages = [{"role": "user", "content": "My name is Alia. Remember it, please."}]
    params = SamplingParams(temperature=0, max_tokens=8)
    (first,) = llm.chat(messages, params, use_tqdm=False)
    messages += [
        {"role": "assistant", "content": first.outputs[0].text},
        {"role": "user", "content": "What is my name?"},
    ]
    (second,) = llm.chat(messages, params, use_tqdm=False)
    assert second.num_cached_tokens >= 32
    assert llm.reset_prefix_cache()
    (again,) = llm.chat(messages, params, use_tqdm=False)
    assert again.num_cached_tokens == 0
    assert again.outputs[0].token_ids == second.outputs[0].token_ids


def test_python_logits_processor_is_obeyed(llm: LLM) -> None:
    def only_a(token_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        mask = torch.full_like(logits, float("-inf"))
        mask[llm.get_tokenizer().encode("a")[0]] = 0.0
        return logits + mask

    params = SamplingParams(max_tokens=4, logits_processors=[only_a])
    (output,) = llm.generate("Hello", params, use_tqdm=False)
    assert output.outputs[0].text == "aaaa"


def test_broken_logits_processor_ends_its_request_alone(llm: LLM) -> None:
    def broken(token_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("my own mistake")

    params = [
        SamplingParams(max_tokens=4, logits_processors=[broken]),
        SamplingParams(max_tokens=4, ignore_eos=True),
    ]
    bad, good = llm.generate(["Hello", "Hello"], params, use_tqdm=False)
    assert bad.outputs[0].finish_reason == "error"
    assert "my own mistake" in (bad.outputs[0].error or "")
    assert good.outputs[0].finish_reason == "length"
    assert llm.stats().num_running == 0


@pytest.mark.parametrize("multiprocess_mode", [False, True])
def test_missing_model_is_one_clear_error(multiprocess_mode: bool, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="nowhere"):
        LLM(model=str(tmp_path / "nowhere"), multiprocess_mode=multiprocess_mode)
