"""Where the time of a workload's steps goes: the summary of a profiler's trace of a few of them."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from quire import LLM
from quire.bench.standard_workloads import Workload

from .engines import Stepper, core_of, wait_for_device
from .steps import host_times, marked_steps
from .trace import TraceSummary, summarise

PROMPTS, STEADY = "prompts", "steady"
NUM_STEPS = {PROMPTS: 8, STEADY: 40}
ENOUGH_FOR_HOST = 220  # output tokens of the longest request: steps for both measurements
# Workload -> steps to profile; others: the steady ones.
WINDOWS = {"prefill": (PROMPTS,), "long": (PROMPTS, STEADY), "prefix": (PROMPTS, STEADY)}


def windows_of(workload_name: str) -> tuple[str, ...]:
    return WINDOWS.get(workload_name, (STEADY,))


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Figures of steps: from the profiler, and the host's times without it."""

    trace: TraceSummary | None
    problem: str  # why there is no trace
    host: dict[str, dict[str, float]] | None  # of steady steps


def look_at(llm: LLM, workload: Workload, window: str) -> Look:
    """Profile the first steps, which compute prompts, or steady ones; then abort the workload."""
    stepper = Stepper(llm.llm_engine, workload)
    stepper.start()
    trace, problem, host = None, "", None
    try:
        if window == STEADY:
            stepper.skip_prompts()
            if max(workload.output_lens) >= ENOUGH_FOR_HOST:
                host = host_times(stepper)
        try:
            trace = _trace(stepper, NUM_STEPS[window])
        except Exception as error:  # the host's times are useful without a trace
            problem = f"{type(error).__name__}: {error}"
    finally:
        stepper.stop()
    return Look(trace=trace, problem=problem, host=host)


def _trace(stepper: Stepper, count: int) -> TraceSummary:
    activities = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(ProfilerActivity.CUDA)
    with marked_steps(core_of(stepper.engine)), profile(activities=activities) as recorded:
        stepper.steps(count)
        wait_for_device()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(file))
        return summarise(json.loads(file.read_text()))
