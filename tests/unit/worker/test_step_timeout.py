"""Step timeout: a step that hangs is named once, then ends the engine; others are waited for."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from quire.errors import EngineDeadError
from quire.step import StepPlan
from quire.worker.step_timeout import StepLabel, StepTimeout

LABEL = StepLabel(
    plan=StepPlan(
        step_id=7,
        rows=np.arange(32, dtype=np.int32),
        num_computed=np.zeros(32, dtype=np.int32),
        num_scheduled=np.full(32, 17, dtype=np.int32),
        samples=np.ones(32, dtype=np.bool_),
        epochs=np.zeros(32, dtype=np.int32),
    ),
    is_graph=True,
)


class Clock:
    """Time passes where somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-4)


class DoneAt:
    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._at = clock.now + seconds

    def query(self) -> bool:
        return self._clock.now >= self._at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def timeout(clock: Clock, timeout_s: float) -> StepTimeout:
    return StepTimeout(timeout_s, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.02, 3.0])
def test_a_step_is_waited_for_and_little_longer(clock: Clock, seconds: float) -> None:
    timeout(clock, 10).wait(DoneAt(clock, seconds), LABEL)
    assert seconds <= clock.now - 100 <= seconds * 1.03 + 1e-4


def test_a_slow_step_is_named_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        timeout(clock, 2).wait(DoneAt(clock, 3.5), LABEL)
    (record,) = caplog.records
    assert "step 7 (32 rows, 544 tokens, replayed from graphs)" in record.getMessage()


def test_a_step_that_never_ends_ends_the_engine(clock: Clock) -> None:
    with pytest.raises(EngineDeadError, match=r"step 7 \(32 rows.* after 4 s: the device hangs"):
        timeout(clock, 2).wait(DoneAt(clock, float("inf")), LABEL)
    assert 4 <= clock.now - 100 < 4.2


def test_zero_waits_for_ever(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    timeout(clock, 0).wait(DoneAt(clock, 1000.0), LABEL)
    assert not caplog.records
