"""Hundreds of random requests, aborted at random, over engines that have too few blocks: nothing is
lost, nothing grows, and every answer is the one of a calm engine. A short storm runs in CI, the
long ones by `make soak`, which prints figures with ``-s``."""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from quire import EngineArgs, LLMEngine
from quire.assets import TINY_CHAT, TINY_DRAFT
from tests.fakes.engines import engine_args, fewest_blocks
from tests.soak.requests import random_asks
from tests.soak.storm import Storm, calm_answers, differences

MAX_MODEL_LEN = 128
MAX_TOKENS = 48
LONGEST_PROMPT = 70


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """One engine that is too small for what comes."""

    spare_blocks: int  # beyond those that one request of full length needs
    max_num_seqs: int = 8
    max_num_batched_tokens: int = 48
    steps_in_flight: int = 1
    scheduling_policy: str = "fcfs"
    block_size: int = 8
    enable_prefix_caching: bool = True
    long_prefill_token_threshold: int = 0

    def args(self, folder: Path) -> EngineArgs:
        limits: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        spare = limits.pop("spare_blocks")
        common = {"max_model_len": MAX_MODEL_LEN, "skip_tokenizer_init": False}
        fewest = fewest_blocks(engine_args(folder, **common, **limits))
        return engine_args(folder, **common, **limits, num_gpu_blocks_override=fewest + spare)


WEATHERS = (
    Weather(spare_blocks=0, max_num_seqs=4),
    Weather(spare_blocks=4, steps_in_flight=2, scheduling_policy="priority"),
    Weather(spare_blocks=2, steps_in_flight=3, max_num_batched_tokens=16),
    Weather(spare_blocks=6, enable_prefix_caching=False, steps_in_flight=2),
    Weather(spare_blocks=3, block_size=16, max_num_seqs=12, long_prefill_token_threshold=9),
    Weather(spare_blocks=40, max_num_seqs=3, steps_in_flight=2, max_num_batched_tokens=128),
)


def calm_engine(folder: Path) -> LLMEngine:
    args = engine_args(
        folder, max_model_len=MAX_MODEL_LEN, max_num_seqs=32, skip_tokenizer_init=False
    )
    return LLMEngine.from_engine_args(args)


def weather_the_storm(weather: Weather, folder: Path, count: int, seed: int) -> Storm:
    """Run, compare with calm weather, and return what happened."""
    random = Random(seed)
    asks = random_asks(
        random,
        count,
        longest_prompt=LONGEST_PROMPT,
        max_tokens=MAX_TOKENS,
        with_priorities=weather.scheduling_policy == "priority",
    )
    engine, calm = LLMEngine.from_engine_args(weather.args(folder)), calm_engine(folder)
    try:
        storm = Storm(engine, random)
        storm.run(asks)
        expected = calm_answers(calm, asks)
        found = [
            problem
            for name, answer in expected.items()
            for problem in differences(storm.answers.get(name), answer)
        ]
        assert found == []
        assert expected.keys() == {ask.name for ask in asks}
        unfinished = sum(
            name not in storm.answers or not storm.answers[name].finished for name in expected
        )
        assert unfinished == storm.num_aborted
        assert engine.stats().num_preemptions > 0
        return storm
    finally:
        engine.close()
        calm.close()


@pytest.mark.parametrize("weather", WEATHERS[1:3], ids=str)
def test_short_storm(weather: Weather) -> None:
    weather_the_storm(weather, TINY_DRAFT, count=40, seed=1)
