"""Engines for measurements, and the two ways to drive one: all at once, or step by step."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from quire import LLM, LLMEngine, SamplingParams
from quire.bench.standard_workloads import Workload
from quire.engine.client import InprocClient
from quire.engine.core import EngineCore
from quire.sampling_params import RequestOutputKind

LAST = RequestOutputKind.FINAL_ONLY  # as in LLM.generate
DEFAULTS: dict[str, Any] = {
    "load_format": "dummy",
    "skip_tokenizer_init": True,
    "use_tqdm_on_load": False,
}


@contextmanager
def open_llm(folder: Path, **options: Any) -> Iterator[LLM]:
    with LLM(str(folder), **{**DEFAULTS, **options}) as llm:
        yield llm
    free_memory()


def free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def core_of(engine: LLMEngine) -> EngineCore:
    """The core of an engine that runs in this process."""
    assert isinstance(engine._client, InprocClient)
    return engine._client._core


def greedy(length: int, **changes: Any) -> SamplingParams:
    common: dict[str, Any] = {"temperature": 0.0, "ignore_eos": True, "detokenize": False}
    return SamplingParams(max_tokens=length, **{**common, **changes})


def run(
    llm: LLM, prompts: list[list[int]], lengths: list[int], **changes: Any
) -> tuple[float, list[list[int]]]:
    """`run_requests` of greedy requests with these lengths."""
    return run_requests(llm, prompts, [greedy(length, **changes) for length in lengths])


def run_requests(
    llm: LLM, prompts: list[list[int]], params: list[SamplingParams]
) -> tuple[float, list[list[int]]]:
    """Run all requests with an empty prefix cache; total seconds, and each request's tokens."""
    llm.reset_prefix_cache()
    wait_for_device()
    started = time.perf_counter()
    outputs = llm.generate(prompt_token_ids=prompts, sampling_params=params, use_tqdm=False)
    took = time.perf_counter() - started
    errors = [one.error for output in outputs for one in output.outputs if one.error is not None]
    if errors:
        raise RuntimeError(f"{len(errors)} requests failed, the first with: {errors[0]}")
    return took, [list(output.outputs[0].token_ids) for output in outputs]


def run_workload(llm: LLM, workload: Workload) -> float:
    """Run the workload; seconds. ``RuntimeError`` for an output that has not its full length."""
    took, tokens = run(llm, workload.prompts, workload.output_lens)
    if [len(one) for one in tokens] != workload.output_lens:
        raise RuntimeError(f"outputs of {workload.name} are not as long as asked")
    return took


def lighter(workload: Workload) -> Workload:
    """A warm-up for ``workload``: most of its shapes in a fraction of its time."""
    longest = max(map(len, workload.prompts))
    count = len(workload.prompts)
    kept = count if longest < 4096 else -(-count // 4)
    lengths = [n if n <= 16 else -(-n // 8) for n in workload.output_lens]
    return Workload(
        name=workload.name,
        prompts=workload.prompts[:kept],
        output_lens=lengths[:kept],
        shared_len=workload.shared_len,
    )


class Stepper:
    """Runs a workload on an engine, step by step."""

    def __init__(self, engine: LLMEngine, workload: Workload) -> None:
        self.engine = engine
        self._workload = workload
        self._names: list[str] = []

    def start(self) -> None:
        """Queue all requests, with an empty prefix cache."""
        self.engine.reset_prefix_cache()
        pairs = zip(self._workload.prompts, self._workload.output_lens, strict=True)
        for number, (prompt, length) in enumerate(pairs):
            name = f"step-by-step-{number}"
            self.engine.add_request(
                name, {"prompt_token_ids": prompt}, greedy(length, output_kind=LAST)
            )
            self._names.append(name)

    def skip_prompts(self) -> None:
        """Step until a step gives every running request a token, and a few steps more."""
        known = self.engine.stats().num_generation_tokens
        while self.engine.has_unfinished_requests():
            self.engine.step()
            stats = self.engine.stats()
            num_new = stats.num_generation_tokens - known
            known = stats.num_generation_tokens
            if stats.num_waiting == 0 and num_new >= stats.num_running > 0:
                break
        self.steps(12)

    def steps(self, count: int) -> int:
        """Run up to ``count`` steps, while requests are unfinished; how many were run."""
        for done in range(count):
            if not self.engine.has_unfinished_requests():
                return done
            self.engine.step()
        return count

    def stop(self) -> None:
        """Abort what still runs, and let the steps in flight end."""
        self.engine.abort_request(self._names)
        core = core_of(self.engine)
        while core.has_unfinished:
            core.step()
        wait_for_device()


def wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
