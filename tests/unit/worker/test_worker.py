"""Worker: a real model from its files to the tokens that transformers gives."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from quire.config import CacheConfig, DeviceConfig, EngineConfig, ModelConfig, SchedulerConfig
from quire.errors import OutOfMemoryError
from quire.request import RowSampling
from quire.worker import worker as worker_module
from quire.worker.facts import WorkerFacts
from quire.worker.gpu_memory import DeviceMemory
from quire.worker.worker import Worker
from tests.fakes.no_sync import NoSync
from tests.unit.worker.plans import GREEDY, PlanWriter

VOCAB_SIZE = 101
NUM_BLOCKS = 40
BLOCK_SIZE = 8
PROMPTS = {0: [5, 17, 80], 1: list(range(3, 40, 2)), 2: [99], 3: [64, 8, 8, 31, 2, 77, 50, 12]}
NUM_NEW = 10


@pytest.fixture(scope="module")
def reference() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,  # so that the best token is far ahead of the second
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def config(reference: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    path: Path = tmp_path_factory.mktemp("llama")
    reference.save_pretrained(path)
    return EngineConfig(
        model=ModelConfig(
            model=str(path),
            path=path,
            tokenizer=path,
            hf_config=json.loads((path / "config.json").read_text()),
            generation_config={},
            architecture="LlamaForCausalLM",
            dtype="float32",
            max_model_len=64,
            vocab_size=VOCAB_SIZE,
        ),
        cache=CacheConfig(block_size=BLOCK_SIZE, memory_bytes=1 << 20),
        scheduler=SchedulerConfig(max_num_seqs=4, max_num_batched_tokens=64),
    )


@pytest.fixture(scope="module")
def expected(reference: LlamaForCausalLM) -> dict[int, list[int]]:
    """Greedy tokens of each prompt alone, each with the whole text as its input."""
    tokens: dict[int, list[int]] = {}
    for row, prompt in PROMPTS.items():
        text = list(prompt)
        with torch.inference_mode():
            for _ in range(NUM_NEW):
                text.append(int(reference(torch.tensor([text])).logits[0, -1].argmax()))
        tokens[row] = text[len(prompt) :]
    return tokens


@pytest.fixture
def worker(config: EngineConfig) -> Iterator[Worker]:
    worker = Worker(config)
    worker.load_model()
    worker.initialize_kv_cache(NUM_BLOCKS)
    yield worker
    worker.close()


@pytest.fixture
def writer() -> PlanWriter:
    return PlanWriter(num_blocks=NUM_BLOCKS, block_size=BLOCK_SIZE, num_groups=1)


def test_facts_are_those_of_the_checkpoint(
    config: EngineConfig, reference: LlamaForCausalLM
) -> None:
    worker = Worker(config)
    facts: WorkerFacts = worker.load_model()
    assert facts.weight_bytes == sum(weight.nbytes for weight in reference.parameters())
    assert facts.attention_backend == "torch"
    assert len(facts.kv_layout.layers) == 2
    assert worker.available_kv_bytes() == 1 << 20
    kv_bytes = worker.initialize_kv_cache(NUM_BLOCKS)
    assert kv_bytes == NUM_BLOCKS * facts.kv_layout.bytes_per_block(BLOCK_SIZE, 4)
    with pytest.raises(AssertionError, match="comes later"):
        worker.available_kv_bytes()  # would take the cache away from the runner


def test_the_threads_of_the_config_are_used(config: EngineConfig) -> None:
    before = torch.get_num_threads()
    worker = Worker(replace(config, device=DeviceConfig(num_threads=before + 1)))
    try:
        worker.load_model()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_a_gpu_too_full_for_the_weights_is_described(
    config: EngineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: EngineConfig) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    memory = DeviceMemory(total=24 << 30, free=2 << 30, reserved=0)
    monkeypatch.setattr(DeviceMemory, "now", lambda: memory)
    monkeypatch.setattr(worker_module, "build_model", fail)
    worker = Worker(replace(config, device=DeviceConfig(device="cuda")))
    with pytest.raises(
        OutOfMemoryError, match=r"24.0 GiB, of which 2.00 GiB were free at the start"
    ):
        worker.load_model()


def test_rows_that_join_at_different_times_give_the_tokens_of_transformers(
    worker: Worker, writer: PlanWriter, expected: dict[int, list[int]]
) -> None:
    joins_at = {0: 0, 1: 0, 2: 3, 3: 5}
    tokens: dict[int, list[int]] = {row: [] for row in PROMPTS}
    for step in range(40):
        for row in (row for row, at in joins_at.items() if at == step):
            writer.join(row, PROMPTS[row])
        running = [row for row in writer.tables if len(tokens[row]) < NUM_NEW]
        if not running:
            break
        counts = {row: min(5, writer.num_tokens[row] - writer.num_computed[row]) for row in running}
        plan = writer.plan(counts)  # long prompts come in chunks of 5
        result = worker.execute(plan).result()
        for row, token in zip(plan.rows[plan.samples], result.token_ids, strict=True):
            tokens[int(row)].append(int(token))
    assert tokens == expected


def test_steps_enqueued_ahead_give_the_tokens_of_transformers(
    worker: Worker, writer: PlanWriter, expected: dict[int, list[int]]
) -> None:
    for row, prompt in PROMPTS.items():
        writer.join(row, prompt)
    plans = [writer.plan({row: len(prompt) for row, prompt in PROMPTS.items()})]
    plans += [writer.plan(dict.fromkeys(PROMPTS, 1)) for _ in range(NUM_NEW - 1)]
    steps = [worker.execute(plan) for plan in plans]
    by_step = [step.result().token_ids.tolist() for step in steps]
    assert dict(enumerate(map(list, zip(*by_step, strict=True)))) == expected


def test_warm_up_leaves_nothing_behind(
    worker: Worker,
    writer: PlanWriter,
    expected: dict[int, list[int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_module, "traffic_sizes", lambda device, max_tokens: [8, 20])
    assert [worker.warm_up() for _ in range(4)] == [True, True, False, False]
    writer.join(1, PROMPTS[1])
    result = worker.execute(writer.plan({1: len(PROMPTS[1])})).result()
    assert result.token_ids.tolist() == expected[1][:1]


@pytest.mark.parametrize("is_broken", [False, True])
def test_a_model_that_says_nothing_is_told(
    is_broken: bool, config: EngineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(config)
    worker.load_model()
    if is_broken:
        assert worker._loaded is not None
        norm = worker._loaded.model.final_norm  # type: ignore[union-attr]
        norm.weight.fill_(torch.nan)  # type: ignore[union-attr]
    worker.initialize_kv_cache(NUM_BLOCKS)
    worker.warm_up()
    assert ("not numbers (NaN)" in caplog.text) == is_broken


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        replace(GREEDY, temperature=0.8, top_k=20, top_p=0.9, min_p=0.01, seed=3),
        replace(GREEDY, presence_penalty=0.5, frequency_penalty=0.2, repetition_penalty=1.3),
        replace(GREEDY, logit_bias=((4, 2.0),), num_logprobs=3),
        replace(GREEDY, min_tokens=20, stop_token_ids=(1, 2)),
    ],
    ids=["greedy", "random", "penalties", "bias and logprobs", "min_tokens"],
)
def test_a_decode_step_never_waits_for_the_device(
    sampling: RowSampling, worker: Worker, writer: PlanWriter
) -> None:
    for row, prompt in PROMPTS.items():
        writer.join(row, prompt, sampling if row % 2 else GREEDY)
    worker.execute(writer.plan({row: len(prompt) for row, prompt in PROMPTS.items()}))
    steps = []
    with NoSync():
        for _ in range(BLOCK_SIZE + 1):  # every row crosses a block border in one of them
            steps.append(worker.execute(writer.plan(dict.fromkeys(PROMPTS, 1))))
    assert all(len(step.result().token_ids) == len(PROMPTS) for step in steps)


def test_tokens_of_a_random_row_do_not_depend_on_its_row_or_neighbours(
    worker: Worker, writer: PlanWriter
) -> None:
    sampling = replace(GREEDY, temperature=1.0, seed=11)

    def tokens_of(row: int, neighbours: list[int]) -> list[int]:
        writer.join(row, PROMPTS[0], sampling)
        for other in neighbours:
            writer.join(other, PROMPTS[1], replace(sampling, seed=other))
        counts = {r: len(PROMPTS[1]) for r in neighbours} | {row: len(PROMPTS[0])}
        tokens = []
        for _ in range(NUM_NEW):
            plan = writer.plan(counts)
            result = worker.execute(plan).result()
            tokens.append(int(result.token_ids[plan.rows.tolist().index(row)]))
            counts = dict.fromkeys(counts, 1)
        for r in counts:
            writer.leave(r)
        return tokens

    alone = tokens_of(2, [])
    assert tokens_of(0, [1, 3]) == alone
    assert tokens_of(3, [0]) == alone
