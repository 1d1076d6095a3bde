"""Host time of steady steps: how long the core's own methods take in their thread, measured by
wrapping them for a while. Needs an engine whose core runs in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch.profiler import record_function

from quire.engine.core import EngineCore

from .engines import Stepper, core_of
from .trace import STEP_MARK

PARTS = ("schedule", "submit", "read", "update")


@dataclass(slots=True)
class StepTimes:
    """Seconds, one entry a step."""

    parts: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in PARTS})
    waits: list[float] = field(default_factory=list)  # for the device
    steps: list[float] = field(default_factory=list)  # EngineCore.step, including the wait
    starts: list[float] = field(default_factory=list)

    def clear(self) -> None:
        for times in (*self.parts.values(), self.waits, self.steps, self.starts):
            times.clear()

    def summary(self) -> dict[str, dict[str, float]]:
        """Part -> median, mean and p99 in microseconds. ``host`` is the core's thread without the
        wait, ``front`` the time between two steps of the core, ``period`` from step to step."""
        steps, waits = np.array(self.steps), np.array(self.waits)
        count = min(len(steps), len(waits))
        host = steps[:count] - waits[:count]
        period = np.diff(self.starts)
        columns = {
            "host": host,
            **{name: np.array(times) for name, times in self.parts.items()},
            "wait": waits,
            "front": period - steps[: len(period)],
            "period": period,
        }
        return {name: _figures(times * 1e6) for name, times in columns.items() if len(times)}


def _figures(values: np.ndarray) -> dict[str, float]:
    return {
        "median": round(float(np.median(values)), 1),
        "mean": round(float(np.mean(values)), 1),
        "p99": round(float(np.percentile(values, 99)), 1),
    }


class _TimedPending:
    """Wraps a step's pending result, and times the wait for the device apart from reading it."""

    def __init__(
        self, pending: Any, times: StepTimes, event: torch.cuda.Event | None, event_s: float
    ) -> None:
        self._pending, self._times, self._event = pending, times, event
        self._event_s = event_s  # time that the event itself took, which is not the engine's

    def result(self) -> Any:
        started = time.perf_counter()
        if self._event is not None:
            self._event.synchronize()
        waited = time.perf_counter()
        result = self._pending.result()
        self._times.waits.append(waited - started + self._event_s)
        self._times.parts["read"].append(time.perf_counter() - waited)
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pending, name)


@contextmanager
def timed_core(core: EngineCore) -> Iterator[StepTimes]:
    """Time the core's methods until the block ends."""
    times = StepTimes()
    submit, step = core._executor.submit, core.step

    def timed_submit(plan: Any) -> _TimedPending:
        started = time.perf_counter()
        pending = submit(plan)
        times.parts["submit"].append(time.perf_counter() - started)
        submitted = time.perf_counter()
        event = None
        if torch.cuda.is_available():
            event = torch.cuda.Event()
            event.record()
        return _TimedPending(pending, times, event, time.perf_counter() - submitted)

    def timed_step() -> Any:
        started = time.perf_counter()
        news = step()
        times.steps.append(time.perf_counter() - started)
        times.starts.append(started)
        return news

    with ExitStack() as stack:
        for name in ("schedule", "update"):
            wrapped = _timed(getattr(core._scheduler, name), times.parts[name])
            stack.enter_context(patch.object(core._scheduler, name, wrapped))
        stack.enter_context(patch.object(core._executor, "submit", timed_submit))
        stack.enter_context(patch.object(core, "step", timed_step))
        yield times


def _timed(function: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        times.append(time.perf_counter() - started)
        return result

    return wrapper


@contextmanager
def marked_steps(core: EngineCore) -> Iterator[None]:
    """Mark every submission of a step with `STEP_MARK` in a profiler's trace."""
    submit = core._executor.submit

    def marked(plan: Any) -> Any:
        with record_function(STEP_MARK):
            return submit(plan)

    with patch.object(core._executor, "submit", marked):
        yield


def host_times(stepper: Stepper, count: int = 150) -> dict[str, dict[str, float]]:
    """Microseconds of the next ``count`` steps; see `StepTimes.summary`."""
    with timed_core(core_of(stepper.engine)) as times:
        stepper.steps(4)  # reads steps that were submitted before timing began
        times.clear()
        stepper.steps(count)
    return times.summary()
