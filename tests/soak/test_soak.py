"""Hundreds of random requests, aborted at random, over engines that have too few blocks: nothing
is lost, nothing grows, and every answer is that of a calm engine. Short storms run in CI, the long
ones by `make soak`; with ``-s`` they print their figures."""

from __future__ import annotations

import gc
import shutil
import time
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import psutil
import pytest
import transformers

from quire import EngineArgs, LLMEngine
from quire.assets import TINY_CHAT, TINY_DRAFT
from quire.step import StepPlan
from tests.fakes.engines import core_of, engine_args, fewest_blocks
from tests.models.configs import ParityRow, save_random_model
from tests.soak.requests import VOCAB_SIZE, Ask, random_asks
from tests.soak.storm import Comparison, Storm, calm_answers

MAX_MODEL_LEN = 128
MAX_TOKENS = 48
LONGEST_PROMPT = 70
FAILING_SHARE = 0.03  # of steps before they are enqueued, and as many behind that
_COMMON = {"max_model_len": MAX_MODEL_LEN, "skip_tokenizer_init": False}


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """The limits of an engine that is too small for what comes."""

    spare_blocks: int  # beyond those that one request of full length needs
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 48
    steps_in_flight: int = 1
    scheduling_policy: str = "fcfs"
    block_size: int = 8
    enable_prefix_caching: bool = True
    long_prefill_token_threshold: int = 0

    def args(self, folder: Path) -> EngineArgs:
        limits: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        spare = limits.pop("spare_blocks")
        fewest = fewest_blocks(engine_args(folder, **_COMMON, **limits))
        return engine_args(folder, **_COMMON, **limits, num_gpu_blocks_override=fewest + spare)

    def asks(self, random: Random, count: int) -> list[Ask]:
        return random_asks(
            random,
            count,
            longest_prompt=LONGEST_PROMPT,
            max_tokens=MAX_TOKENS,
            with_priorities=self.scheduling_policy == "priority",
        )


WEATHERS = {
    "no room": Weather(spare_blocks=0, max_num_seqs=4),
    "priorities": Weather(spare_blocks=4, steps_in_flight=2, scheduling_policy="priority"),
    "three steps": Weather(spare_blocks=2, steps_in_flight=3, max_num_batched_tokens=16),
    "no cache": Weather(spare_blocks=6, enable_prefix_caching=False, steps_in_flight=2),
    "large blocks": Weather(
        spare_blocks=3, block_size=16, max_num_seqs=12, long_prefill_token_threshold=9
    ),
    "few rows": Weather(
        spare_blocks=4, max_num_seqs=3, steps_in_flight=2, max_num_batched_tokens=128
    ),
}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model some of whose layers have a window: blocks of two groups. With the bundled
    model's tokenizer."""
    folder = tmp_path_factory.mktemp("windowed")
    config = transformers.Qwen2Config(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=MAX_MODEL_LEN,
        use_sliding_window=True, sliding_window=21, max_window_layers=1, eos_token_id=2,
    )  # fmt: skip
    row = ParityRow(architecture="Qwen2ForCausalLM", variant="soak", make_config=lambda: config)
    save_random_model(row, folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TINY_CHAT / name, folder)
    return folder


def weather_the_storm(weather: Weather, folder: Path, count: int, seed: int) -> str:
    """Run, compare with calm weather, and say in figures what happened."""
    random = Random(seed)
    asks = weather.asks(random, count)
    started = time.perf_counter()
    engine = LLMEngine.from_engine_args(weather.args(folder))
    storm = Storm(engine, random)
    storm.run(asks)
    took, stats = time.perf_counter() - started, engine.stats()
    engine.close()
    comparison = _compare(storm, asks, folder)
    assert comparison.problems == []
    assert comparison.num_rounded <= comparison.num_completions / 100
    assert stats.num_preemptions > 0 and storm.num_aborted_running > 0
    return (
        f"{count} requests, {comparison.num_completions} completions, {len(storm.aborted)} aborted "
        f"({storm.num_aborted_running} while they ran), {storm.num_steps} steps, "
        f"{stats.num_generation_tokens} tokens, {took:.1f} s; "
        f"{stats.num_blocks} blocks, {stats.num_preemptions} preemptions, "
        f"{stats.num_prefix_hit_tokens} tokens cached, at most {storm.most_waiting} waiting; "
        f"{comparison.num_rounded} completions rounded"
    )


def run_with_failing_steps(storm: Storm, asks: list[Ask], random: Random) -> int:
    """How many steps failed; the engine tries the requests of each again, one by one."""
    submit = core_of(storm.engine)._executor.submit
    num_failed = 0

    def may_fail(plan: StepPlan) -> Any:
        nonlocal num_failed
        moment = random.random()
        num_failed += moment < 2 * FAILING_SHARE
        if moment < FAILING_SHARE:
            raise RuntimeError("a storm's own, before a step")
        pending = submit(plan)
        if moment < 2 * FAILING_SHARE:
            raise RuntimeError("a storm's own, behind a step")
        return pending

    with patch.object(core_of(storm.engine)._executor, "submit", may_fail):
        storm.run(asks)
    return num_failed


def _compare(storm: Storm, asks: list[Ask], folder: Path) -> Comparison:
    calm = LLMEngine.from_engine_args(engine_args(folder, **_COMMON, max_num_seqs=32))
    expected = calm_answers(calm, asks)
    calm.close()
    comparison = Comparison()
    unfinished = set()
    for ask in asks:
        answer = storm.answers.get(ask.name)
        if answer is None or not answer.finished:
            unfinished.add(ask.name)
        if answer is not None:
            comparison.add(answer, expected[ask.name], ask)
    assert unfinished == storm.aborted & {ask.name for ask in asks}
    return comparison


@pytest.mark.parametrize("name", ["priorities", "three steps"])
def test_short_storm(name: str) -> None:
    weather_the_storm(WEATHERS[name], TINY_DRAFT, count=40, seed=0)


def test_short_storm_over_layers_with_windows(windowed: Path) -> None:
    weather_the_storm(WEATHERS["no cache"], windowed, count=40, seed=0)


@pytest.mark.parametrize("seed", [1, 2])
def test_short_storm_in_which_steps_fail(seed: int) -> None:
    """Who fails alone has an error for an end, and all others what they would have had."""
    random = Random(seed)
    weather = WEATHERS["three steps"]
    asks = [ask for ask in weather.asks(random, 40) if ask.params.best_of is None]
    engine = LLMEngine.from_engine_args(weather.args(TINY_DRAFT))
    storm = Storm(engine, random)
    assert run_with_failing_steps(storm, asks, random) > 5
    engine.close()
    failed = {
        name
        for name, answer in storm.answers.items()
        if any(one.finish_reason == "error" for one in answer.outputs)
    }
    assert 0 < len(failed) < len(asks) / 2
    comparison = _compare(storm, [ask for ask in asks if ask.name not in failed], TINY_DRAFT)
    assert comparison.problems == []


@pytest.mark.soak
@pytest.mark.parametrize("name", WEATHERS)
def test_long_storm(name: str) -> None:
    print(f"\n{name}: {weather_the_storm(WEATHERS[name], TINY_CHAT, count=300, seed=1)}")


@pytest.mark.soak
@pytest.mark.parametrize("name", WEATHERS)
def test_long_storm_over_layers_with_windows(name: str, windowed: Path) -> None:
    print(f"\n{name}: {weather_the_storm(WEATHERS[name], windowed, count=200, seed=2)}")


@pytest.mark.soak
def test_memory_stays_flat() -> None:
    """One engine in storm after storm, with the same request ids again and again."""
    weather = WEATHERS["priorities"]
    engine = LLMEngine.from_engine_args(weather.args(TINY_DRAFT))
    num_objects, num_bytes = [], []
    for seed in range(10):
        random = Random(seed)
        Storm(engine, random).run(weather.asks(random, 150))
        gc.collect()
        num_objects.append(len(gc.get_objects()))
        num_bytes.append(psutil.Process().memory_info().rss)
    engine.close()
    print(f"\nobjects {num_objects}\nMiB {[size >> 20 for size in num_bytes]}")
    assert num_objects[-1] - num_objects[2] < 200
    assert num_bytes[-1] - num_bytes[2] < 32 * 2**20
