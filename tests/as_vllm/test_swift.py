"""What the framework SWIFT needs of an engine, row by row of what is known of it.

With a core that repeats the prompt; `test_programs.py` runs it all with a model.
"""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging import version
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import quire
from quire import AsyncEngineArgs, AsyncLLMEngine, EngineArgs, LLMEngine, SamplingParams
from quire.as_vllm.names import MODULES, VERSION
from tests.fakes.byte_tokenizer import VOCAB_SIZE
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE


@pytest.fixture
def engine(byte_tokenizer: Path) -> Iterator[LLMEngine]:
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    made = LLMEngine(config, build=BUILD_FAKE_CORE)
    yield made
    made.close()


@pytest.fixture
def async_engine(byte_tokenizer: Path) -> Iterator[AsyncLLMEngine]:
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)
    made = AsyncLLMEngine(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    yield made
    made.shutdown()


class FirstConfig(SamplingParams):
    """As their first generation wrote it: a constructor, and names that watch each other."""

    def __init__(self, max_length: int = 20, max_new_tokens: int | None = None, **kw: Any) -> None:
        object.__setattr__(self, "max_length", max_length)
        super().__init__(**{"max_tokens": max_new_tokens, **kw})

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "max_new_tokens":
            self.max_tokens = value
        elif key == "max_length":
            raise ValueError("set max_new_tokens")
        else:
            super().__setattr__(key, value)


class LaterConfig(SamplingParams):
    """As their later one wrote it: annotations, and a method after the constructor."""

    max_new_tokens: int = 64
    num_beams: int = 1

    def __post_init__(self) -> None:
        self.max_tokens = self.max_new_tokens
        if self.num_beams > 1:
            self.use_beam_search, self.best_of = True, self.num_beams
        super().__post_init__()


def test_imports() -> None:
    wanted = ("EngineArgs", "LLMEngine", "SamplingParams", "AsyncEngineArgs", "AsyncLLMEngine")
    assert {*wanted} <= MODULES["vllm"].names.keys()
    assert "LoRARequest" in MODULES["vllm.lora.request"].names
    assert version.parse(VERSION) >= version.parse("0.4.3")
    place = "vllm.model_executor.parallel_utils.parallel_state"
    module, _, name = MODULES[place].names["destroy_model_parallel"].partition(":")
    assert getattr(importlib.import_module(module), name)() is None


@pytest.mark.parametrize("cls", [EngineArgs, AsyncEngineArgs])
def test_engine_args_tell_their_names_and_take_what_is_passed(cls: type[EngineArgs]) -> None:
    parameters = inspect.signature(cls.__init__).parameters
    assert {"enable_lora", "max_loras", "max_lora_rank", "limit_mm_per_prompt"} <= {*parameters}
    for dtype in ("auto", "float16", "bfloat16", "float32"):
        args = cls(
            model="a-model",
            dtype=dtype,
            trust_remote_code=True,
            gpu_memory_utilization=0.9,
            tensor_parallel_size=1,
            pipeline_parallel_size=1,
            max_num_seqs=256,
            max_model_len=None,
            disable_custom_all_reduce=True,
            enforce_eager=False,
            disable_log_stats=True,
            disable_log_requests=True,
        )
        assert (args.model, args.dtype, args.max_num_seqs) == ("a-model", dtype, 256)


@pytest.mark.parametrize(
    "name",
    """engine_args model_dir model_type tokenizer hf_tokenizer generation_config model_config dtype
    max_model_len is_multimodal""".split(),
)
def test_an_engine_takes_attributes(name: str, engine: LLMEngine, byte_tokenizer: Path) -> None:
    value: Any = AutoTokenizer.from_pretrained(byte_tokenizer) if name == "tokenizer" else object()
    setattr(engine, name, value)
    found = getattr(engine, name)
    assert found.tokenizer is value if name == "tokenizer" else found is value


def test_the_config_of_the_model_is_read_from_engines(
    engine: LLMEngine, async_engine: AsyncLLMEngine
) -> None:
    for config in (engine.model_config, async_engine.engine.model_config):
        assert config.hf_config.model_type == "llama"
        assert config.dtype is torch.float32
        assert config.max_model_len == 64


def test_the_tokenizer_inside_can_be_read_and_replaced(
    engine: LLMEngine, async_engine: AsyncLLMEngine, byte_tokenizer: Path
) -> None:
    for one in (engine, async_engine.engine):
        assert isinstance(one.tokenizer.tokenizer, PreTrainedTokenizerBase)
        assert isinstance(one.tokenizer, PreTrainedTokenizerBase)
        mine = AutoTokenizer.from_pretrained(byte_tokenizer)
        one.tokenizer.tokenizer = mine
        assert one.tokenizer.tokenizer is mine


@pytest.mark.parametrize("cls", [FirstConfig, LaterConfig])
def test_sampling_params_are_subclassed_copied_and_changed(cls: Any, engine: LLMEngine) -> None:
    config = cls(max_new_tokens=5, temperature=0.3, repetition_penalty=1.1)
    own = copy.deepcopy(config)
    own.stop = ["zz"]
    own.stop.append("<|im_end|>")
    own.max_tokens = 3
    assert (config.stop, config.max_tokens) == ([], 5)
    assert own.temperature == 0.3
    engine.add_request("a", {"prompt_token_ids": [5, 6]}, own)
    assert [len(output.outputs[0].token_ids) for output in steps(engine)][-1] == 3


def test_names_of_the_subclass_reach_those_of_the_engine() -> None:
    first = FirstConfig()
    first.max_new_tokens = 7
    assert first.max_tokens == 7
    later = LaterConfig(num_beams=3)
    assert later.beam is not None and later.beam.width == 3
    assert "length_penalty" in inspect.signature(SamplingParams.__init__).parameters
    assert "length_penalty" in SamplingParams.__annotations__


def steps(engine: LLMEngine) -> list[quire.RequestOutput]:
    outputs = []
    while engine.has_unfinished_requests():
        outputs += engine.step()
    return outputs


def test_the_loop_in_both_forms(engine: LLMEngine) -> None:
    params = SamplingParams(max_tokens=4, logprobs=0)
    prompt = {"prompt_token_ids": [70, 71], "multi_modal_data": None}
    engine.add_request("new", prompt, params, lora_request=None)
    engine.add_request("old", None, params, [70, 71])
    last = {output.request_id: output for output in steps(engine)}
    assert last.keys() == {"new", "old"}
    for output in last.values():
        completion = output.outputs[0]
        assert output.finished and output.prompt_token_ids == [70, 71]
        assert list(completion.token_ids) == [70, 71, 70, 71]
        assert completion.finish_reason == "length"
        assert completion.text and completion.logprobs is not None


def test_outputs_of_steps_are_cumulative(engine: LLMEngine) -> None:
    engine.add_request("a", "xyz", SamplingParams(max_tokens=6))
    texts = [output.outputs[0].text for output in steps(engine)]
    assert texts[-1] == "xyzxyz"
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    print_idx, shown = 0, ""
    for text in texts:
        shown += text[print_idx:]
        print_idx = len(text)
    assert shown == "xyzxyz"


def test_a_request_can_be_aborted(engine: LLMEngine) -> None:
    engine.add_request("a", "xyz", SamplingParams(max_tokens=6))
    engine.abort_request("a")
    assert not engine.has_unfinished_requests()


async def test_the_async_engine_gives_outputs_as_an_iterator(
    async_engine: AsyncLLMEngine,
) -> None:
    inputs = {"prompt_token_ids": [70, 71]}
    outputs = [
        output async for output in async_engine.generate(inputs, SamplingParams(max_tokens=4), "a")
    ]
    assert all(isinstance(output, quire.RequestOutput) for output in outputs)
    assert list(outputs[-1].outputs[0].token_ids) == [70, 71, 70, 71]


def test_what_the_caller_needs_to_count_is_in_the_outputs(engine: LLMEngine) -> None:
    for i in range(3):
        engine.add_request(str(i), "xyz", SamplingParams(max_tokens=4))
    ended = [output for output in steps(engine) if output.finished]
    assert sum(len(output.prompt_token_ids or ()) for output in ended) == 9
    assert sum(len(output.outputs[0].token_ids) for output in ended) == 12
    assert len(ended) == 3
