"""How long the next plan can wait."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest

from quire.engine.step_clock import MARGIN_S, MARGIN_SHARE, StepClock
from quire.step import StepPlan


def plan(num_rows: int, num_scheduled: int = 1) -> StepPlan:
    """A decode step, or one of prompts."""
    return StepPlan(
        step_id=0,
        rows=np.arange(num_rows, dtype=np.int32),
        num_computed=np.full(num_rows, 9 if num_scheduled == 1 else 0, dtype=np.int32),
        num_scheduled=np.full(num_rows, num_scheduled, dtype=np.int32),
        samples=np.ones(num_rows, dtype=np.bool_),
        epochs=np.zeros(num_rows, dtype=np.int32),
    )


class World:
    """A clock whose time is told."""

    def __init__(self) -> None:
        self.now = 100.0
        self.clock = StepClock(lambda: self.now)

    def run(self, step: StepPlan, seconds: float) -> None:
        self.clock.submitted(step)
        self.read(seconds)

    def read(self, seconds: float) -> None:
        self.now += seconds
        self.clock.done(is_late=False)


def spare(seconds: float) -> float:
    return pytest.approx(seconds * (1 - MARGIN_SHARE) - MARGIN_S)


def test_a_step_takes_as_long_as_the_last_ones_of_its_kind() -> None:
    world = World()
    assert world.clock.seconds_to_spare() == 0.0
    world.run(plan(5), 0.040)
    world.clock.submitted(plan(6))
    assert world.clock.seconds_to_spare() == 0.0  # one alone may have been the first of its kind
    world.read(0.020)
    world.clock.submitted(plan(7))
    assert world.clock.seconds_to_spare() == spare(0.020)
    world.now += 0.010
    assert world.clock.seconds_to_spare() == pytest.approx(spare(0.020).expected - 0.010)
    world.now += 1.0
    assert world.clock.seconds_to_spare() == 0.0


def test_prompts_take_time_by_their_tokens_and_are_a_kind_of_their_own() -> None:
    world = World()
    for _ in range(2):
        world.run(plan(8), 0.005)
        world.run(plan(2, 300), 0.060)
    world.clock.submitted(plan(2, 400))
    assert world.clock.seconds_to_spare() == spare(0.080)
    world.clock.forget()
    world.clock.submitted(plan(1, 4000))
    assert world.clock.seconds_to_spare() == 0.0  # so many at once are new


def test_a_step_that_nobody_looked_at_for_long_is_not_believed() -> None:
    """As the last ones before nothing was left to do."""
    world = World()
    for _ in range(3):
        world.clock.submitted(plan(2, 100))
        world.now += 8.0
        world.clock.done(is_late=True)
    world.clock.submitted(plan(2, 100))
    assert world.clock.seconds_to_spare() == 0.0
    world.clock.forget()
    for _ in range(2):
        world.run(plan(8), 0.010)
    world.clock.submitted(plan(8))
    world.now += 8.0
    world.clock.done(is_late=True)
    world.clock.submitted(plan(8))
    assert world.clock.seconds_to_spare() == spare(0.8 * 0.010)


def test_steps_in_flight_come_one_after_the_other() -> None:
    world = World()
    for _ in range(2):
        world.run(plan(8), 0.010)
    world.clock.submitted(plan(8))
    world.now += 0.001
    world.clock.submitted(plan(8))
    both = (0.010 + 0.010) * (1 - MARGIN_SHARE) - MARGIN_S - 0.001
    assert world.clock.seconds_to_spare() == pytest.approx(both)
    world.read(0.009)  # the second began only now
    assert world.clock.seconds_to_spare() == spare(0.010)


@pytest.mark.parametrize("device_s", [0.0008, 0.005, 0.012, 0.2])
def test_plans_are_late_and_the_device_is_hardly_ever_without_work(device_s: float) -> None:
    """Two steps in flight. Now and then the host needs five times as long."""
    chance, world = random.Random(0), World()
    num_steps, ends = 600, deque[float]()
    free_at, idle, early = world.now, 0.0, 0.0
    for _ in range(num_steps):
        world.now += world.clock.seconds_to_spare()
        world.now += 0.0003 * (5 if chance.random() < 0.1 else 1)
        idle += max(0.0, world.now - free_at)
        early += max(0.0, free_at - world.now)
        free_at = max(free_at, world.now) + device_s * chance.uniform(0.97, 1.03)
        world.clock.submitted(plan(8))
        ends.append(free_at)
        if len(ends) == 2:
            is_late = ends[0] <= world.now
            world.now = max(world.now, ends.popleft())
            world.clock.done(is_late=is_late)
    host_alone = max(0.0, 0.1 * (0.0015 - device_s))  # late whenever it begins
    assert idle / num_steps < host_alone + 0.01 * device_s + 0.00001
    assert early / num_steps < max(device_s, 2 * MARGIN_S) / 2 + MARGIN_S
