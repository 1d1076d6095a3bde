"""The soak unit: random requests for minutes on engines with too few KV blocks. Each answer is
compared with a rerun of its request alone, with one step in flight and without graphs.

The storm itself is in tests/soak; here are the models, the limits and the check of memory growth.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil
import torch

from quire import LLMEngine
from quire.assets import TINY_CHAT
from quire.outputs import RequestOutput
from tests.fakes.engines import engine_args, fewest_blocks, run_to_end
from tests.soak.requests import VOCAB_SIZE, Ask, random_asks
from tests.soak.storm import Comparison, Storm

from .engines import free_memory, wait_for_device
from .records import Records
from .rounding import first_difference, margin_at
from .units import DoItem, Unit

MAX_MODEL_LEN = 192
LONGEST_PROMPT = 110
MAX_TOKENS = 64
REQUESTS_PER_ROUND = 60
SETTLING_ROUNDS = 3  # until caches are warm and rare graphs are captured
TIE = 1e-3  # difference of float32 log-probabilities whose order rounding may change
MOST_ROUNDED = 0.01  # share of completions that rounding may change
MOST_GROWTH_MIB = {"device": 4.0, "host": 64.0}
SMALL_SIZES = {
    "vocab_size": VOCAB_SIZE, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Weather:
    """A tiny model and the limits of its engine."""

    sizes: dict[str, Any] = field(default_factory=dict)  # of the model
    spare_blocks: int  # beyond those that one request of full length needs
    limits: dict[str, Any]


WEATHERS = {
    "grouped-heads": Weather(
        sizes={"head_dim": 32},
        spare_blocks=2,
        limits={"steps_in_flight": 3, "max_num_batched_tokens": 64, "max_num_seqs": 8},
    ),
    "windows": Weather(
        sizes={"sliding_window": 21, "max_window_layers": 1},
        spare_blocks=6,
        limits={"steps_in_flight": 2, "max_num_seqs": 12, "enable_prefix_caching": False},
    ),
    "experts": Weather(
        sizes={"head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2,
               "moe_intermediate_size": 48},
        spare_blocks=4,
        limits={"steps_in_flight": 2, "max_num_seqs": 8, "scheduling_policy": "priority"},
    ),
}  # fmt: skip


@contextmanager
def soak_unit(unit: Unit, records: Records) -> Iterator[DoItem]:
    """Items are names of `WEATHERS`; each gets its share of ``minutes``."""
    seconds = 60 * unit.options["minutes"] / len(unit.options["names"])

    def do(item: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            soak = Soak(item, Path(folder), unit.options["engine"])
            try:
                result = soak.run(seconds)
            finally:
                soak.close()
        records.add("soak", what=item, **result)
        print(f"soak {'ok  ' if result['passed'] else 'FAIL'} {item}: {in_words(result)}")
        for problem in result["problems"]:
            print(f"    {problem[:300]}", flush=True)

    yield do


class Soak:
    """Runs rounds of requests on one engine, and each request again on a second, calm one."""

    def __init__(self, name: str, folder: Path, engine: dict[str, Any]) -> None:
        self._weather = WEATHERS[name]
        self._folder = folder
        save_model(name, folder)
        self._common = {
            "max_model_len": MAX_MODEL_LEN, "skip_tokenizer_init": False, "block_size": 16,
            "device": "cuda" if torch.cuda.is_available() else "cpu", **engine,
        }  # fmt: skip
        self._calm = self._open(
            max_num_seqs=32, steps_in_flight=1, enforce_eager=True, num_gpu_blocks_override=600
        )
        self._storm_engine = self._open_storm()
        self._comparison = Comparison(neighbours=VOCAB_SIZE)
        self._counts = dict.fromkeys(
            ("rounds", "requests", "aborted", "aborted_running", "steps", "ties"), 0
        )
        self._preemptions = 0  # of engines that were replaced
        self._memory: list[dict[str, float]] = []

    def run(self, seconds: float) -> dict[str, Any]:
        """Run rounds until the time is over, at least one; the result as figures."""
        until = time.monotonic() + seconds
        while True:
            try:
                self._round(seed=self._counts["rounds"])
            except Exception as error:  # a round that breaks is a finding, and the next one runs
                traceback.print_exc()
                self._comparison.problems.append(f"a round broke: {error!r}")
                self._replace_engine()
            self._counts["rounds"] += 1
            self._memory.append(memory_mib())
            if time.monotonic() >= until:
                return self._result()

    def close(self) -> None:
        for engine in (self._storm_engine, self._calm):
            engine.close()
        free_memory()

    def _round(self, seed: int) -> None:
        random = Random(seed)
        asks = random_asks(
            random, REQUESTS_PER_ROUND, longest_prompt=LONGEST_PROMPT, max_tokens=MAX_TOKENS,
            with_priorities=self._weather.limits.get("scheduling_policy") == "priority",
        )  # fmt: skip
        storm = Storm(self._storm_engine, random, check_every=5)
        storm.run(asks)  # checks that no block is lost, and that nothing is left
        for ask in asks:
            answer = storm.answers.get(ask.name)
            if answer is not None:
                self._compare(ask, answer)
        self._counts["requests"] += len(asks)
        self._counts["aborted"] += len(storm.aborted)
        self._counts["aborted_running"] += storm.num_aborted_running
        self._counts["steps"] += storm.num_steps

    def _compare(self, ask: Ask, answer: RequestOutput) -> None:
        calm = self._alone(ask)
        one = Comparison(neighbours=VOCAB_SIZE)
        one.add(answer, calm, ask)
        self._comparison.num_completions += one.num_completions
        self._comparison.num_rounded += one.num_rounded
        if one.problems and self._is_tie(ask, answer):
            self._counts["ties"] += 1
        else:
            self._comparison.problems += one.problems

    def _alone(self, ask: Ask) -> RequestOutput:
        calm = ask.calm()
        self._calm.add_request(calm.name, calm.prompt, calm.params)
        return run_to_end(self._calm)[calm.name]

    def _is_tie(self, ask: Ask, answer: RequestOutput) -> bool:
        """Whether the two best tokens were equally likely where greedy answers first differ."""
        if ask.params.temperature != 0 or ask.params.use_beam_search:
            return False
        calm = ask.calm()
        calm.params.logprobs = 2
        self._calm.add_request(calm.name, calm.prompt, calm.params)
        others = {one.index: one for one in run_to_end(self._calm)[calm.name].outputs}
        for one in answer.outputs:
            other = others[one.index]
            place = first_difference(one.token_ids, other.token_ids[: len(one.token_ids)])
            if place is not None and margin_at(other, place) > TIE:
                return False
        return True

    def _result(self) -> dict[str, Any]:
        settled = self._memory[min(SETTLING_ROUNDS, len(self._memory)) - 1]
        growth = {
            where: round(self._memory[-1][where] - settled[where], 2) for where in MOST_GROWTH_MIB
        }
        stats, comparison = self._storm_engine.stats(), self._comparison
        is_flat = all(growth[where] <= most for where, most in MOST_GROWTH_MIB.items())
        few_rounded = comparison.num_rounded <= MOST_ROUNDED * comparison.num_completions
        return {
            **self._counts,
            "completions": comparison.num_completions,
            "rounded": comparison.num_rounded,
            "preemptions": self._preemptions + stats.num_preemptions,
            "blocks": stats.num_blocks,
            "blocks_lost": stats.num_blocks - 1 - stats.num_free_blocks,
            "memory_mib": {"first": self._memory[0], "settled": settled, "last": self._memory[-1]},
            "growth_mib": growth,
            "num_problems": len(comparison.problems),
            "problems": comparison.problems[:10],
            "passed": not comparison.problems and is_flat and few_rounded,
        }

    def _replace_engine(self) -> None:
        self._preemptions += self._storm_engine.stats().num_preemptions
        self._storm_engine.close()
        free_memory()
        self._storm_engine = self._open_storm()

    def _open_storm(self) -> LLMEngine:
        limits = self._weather.limits
        fewest = fewest_blocks(engine_args(self._folder, **{**self._common, **limits}))
        return self._open(**limits, num_gpu_blocks_override=fewest + self._weather.spare_blocks)

    def _open(self, **limits: Any) -> LLMEngine:
        return LLMEngine.from_engine_args(engine_args(self._folder, **{**self._common, **limits}))


def save_model(name: str, folder: Path) -> None:
    """A tiny float32 model with the bundled tokenizer."""
    from .tiny_models import save_tiny_model

    save_tiny_model(name, folder, **{**SMALL_SIZES, **WEATHERS[name].sizes})
    for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(TINY_CHAT / file, folder)


def memory_mib() -> dict[str, float]:
    gc.collect()
    wait_for_device()
    on_device = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
    return {
        "device": round(on_device / 2**20, 2),
        "host": round(psutil.Process().memory_info().rss / 2**20, 1),
    }


def in_words(result: dict[str, Any]) -> str:
    first, last = (result["memory_mib"][when] for when in ("first", "last"))
    return (
        f"{result['rounds']} rounds, {result['requests']} requests, {result['completions']} "
        f"completions, {result['steps']} steps, {result['aborted']} aborted "
        f"({result['aborted_running']} while they ran), {result['preemptions']} preemptions over "
        f"{result['blocks']} blocks; {result['num_problems']} wrong answers, {result['rounded']} "
        f"sampled ones rounded, {result['ties']} ties, {result['blocks_lost']} blocks lost; MiB "
        f"on the device {first['device']} -> {last['device']}, on the host {first['host']} -> "
        f"{last['host']} (after settling {result['growth_mib']['device']:+} and "
        f"{result['growth_mib']['host']:+})"
    )
