"""What the core does when something under it is broken."""

from __future__ import annotations

import pytest

from quire.config import SchedulerConfig
from quire.engine.core import EngineCore
from quire.engine.step_clock import MARGIN_S, MARGIN_SHARE, StepClock
from quire.errors import EngineDeadError
from quire.kv_cache.manager import KVCacheManager
from quire.scheduler.scheduler import Scheduler
from quire.step import StepPlan, StepResult
from quire.step_output import STEP_TOKENS_BOUNDS
from tests.fakes.configs import FAKE_FACTS
from tests.fakes.device import FakeDevice, FakeResult
from tests.fakes.gates import open_gate
from tests.unit.scheduler.engines import request


class BrokenScheduler(Scheduler):
    def schedule(self) -> StepPlan | None:
        raise AssertionError("two owners of one row")


class DeadDevice(FakeDevice):
    def submit(self, plan: StepPlan) -> FakeResult:
        raise EngineDeadError("the ranks are gone")


class HungResult:
    is_done = False

    def result(self) -> StepResult:
        raise EngineDeadError("step 0 was not done after 600 s")


class HungDevice(FakeDevice):
    def submit(self, plan: StepPlan) -> HungResult:  # type: ignore[override]
        return HungResult()


@pytest.mark.parametrize(
    ("scheduler", "device", "error"),
    [
        (BrokenScheduler, FakeDevice, AssertionError),
        (Scheduler, DeadDevice, EngineDeadError),
        (Scheduler, HungDevice, EngineDeadError),
    ],
)
def test_what_cannot_be_tried_again_ends_the_engine(
    scheduler: type[Scheduler], device: type[FakeDevice], error: type[Exception]
) -> None:
    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(scheduler(SchedulerConfig(), kv, 64), device(4), FAKE_FACTS, 1, open_gate())  # type: ignore[arg-type]
    core.add_request(request("a", [1, 2]))
    with pytest.raises(error):
        core.step()


def test_an_idle_device_begins_before_anybody_waits() -> None:
    kv = KVCacheManager(num_blocks=20, block_size=4)
    config = SchedulerConfig(steps_in_flight=3)
    device = FakeDevice(4)
    core = EngineCore(Scheduler(config, kv, 64), device, FAKE_FACTS, 3, open_gate())
    core.begin()
    assert not core._in_flight
    core.add_request(request("a", [1, 2], max_tokens=9))
    core.begin()
    core.add_request(request("b", [3, 4], max_tokens=9))
    core.begin()
    assert [plan.num_tokens for plan, _ in core._in_flight] == [2]
    deltas = core.step()
    assert [delta.request_id for delta in deltas] == ["a"]
    assert [plan.num_tokens for plan, _ in core._in_flight] == [3, 2]


class FailingDevice(FakeDevice):
    def submit(self, plan: StepPlan) -> FakeResult:
        raise ValueError("no kernel for this")


def test_what_fails_as_it_begins_is_told_with_the_next_step() -> None:
    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(
        Scheduler(SchedulerConfig(), kv, 64), FailingDevice(4), FAKE_FACTS, 1, open_gate()
    )
    core.add_request(request("a", [1, 2]))
    core.begin()  # fails; the request is tried again alone
    core.begin()  # fails for good
    assert core.has_unfinished
    (delta,) = core.step()
    assert delta.request_id == "a" and delta.error == "ValueError: no kernel for this"
    assert not core.has_unfinished


STEP_S = 0.02


class BusyDevice(FakeDevice):
    """As far as one can see, it is never done with the last step. Time passes only here."""

    now = 100.0

    def submit(self, plan: StepPlan) -> FakeResult:
        given = super().submit(plan)
        given.is_done = False
        self.now += STEP_S
        return given


def busy_core(steps_in_flight: int) -> EngineCore:
    kv = KVCacheManager(num_blocks=20, block_size=4)
    config = SchedulerConfig(max_num_seqs=1, steps_in_flight=steps_in_flight)
    device = BusyDevice(4)
    core = EngineCore(Scheduler(config, kv, 64), device, FAKE_FACTS, steps_in_flight, open_gate())
    core._clock = StepClock(lambda: device.now)
    return core


def test_the_next_plan_waits_while_the_device_has_work_and_nobody_else_does() -> None:
    core = busy_core(steps_in_flight=2)
    assert core.seconds_to_spare() == 0.0
    core.add_request(request("a", [1, 2], max_tokens=30))
    assert core.seconds_to_spare() == 0.0  # nothing is in flight
    for _ in range(8):
        core.step()
    assert core.seconds_to_spare() == pytest.approx(STEP_S * (1 - MARGIN_SHARE) - MARGIN_S)
    _, last = core._in_flight[-1]
    last.is_done = True
    assert core.seconds_to_spare() == 0.0
    last.is_done = False
    assert core.seconds_to_spare() > 0.0
    core.add_request(request("b", [1, 2]))  # there is no room for it
    assert core.seconds_to_spare() == 0.0


def test_a_result_that_is_there_is_read_though_later_steps_are_in_flight() -> None:
    core = busy_core(steps_in_flight=4)
    core.add_request(request("a", [1, 2], max_tokens=30))
    for _ in range(8):
        core.step()
    assert len(core._in_flight) > 1 and core.seconds_to_spare() > 0.0
    _, oldest = core._in_flight[0]
    oldest.is_done = True
    assert core.seconds_to_spare() == 0.0


def test_a_warm_up_that_fails_is_told_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(FakeDevice):
        def warm_up(self) -> bool:
            raise RuntimeError("no memory for so many tokens")

    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(Scheduler(SchedulerConfig(), kv, 64), Failing(4), FAKE_FACTS, 1, open_gate())
    assert core.warm_up_more() is False
    assert "no memory for so many tokens" in caplog.text


def test_a_warm_up_on_a_device_that_is_lost_ends_the_engine() -> None:
    class LostDevice(FakeDevice):
        def warm_up(self) -> bool:
            raise EngineDeadError("the device was lost")

    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(
        Scheduler(SchedulerConfig(), kv, 64), LostDevice(4), FAKE_FACTS, 1, open_gate()
    )
    with pytest.raises(EngineDeadError, match="the device was lost"):
        core.warm_up_more()


def test_grammars_are_warmed_up_when_all_steps_are(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    gate = open_gate()
    monkeypatch.setattr(gate, "warm_up", lambda: done.append("grammars"))

    class Device(FakeDevice):
        def warm_up(self) -> bool:
            done.append("steps")
            return len(done) < 3

    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(Scheduler(SchedulerConfig(), kv, 64), Device(4), FAKE_FACTS, 1, gate)
    while core.warm_up_more():
        pass
    assert done == ["steps", "steps", "steps", "grammars"]


def test_steps_are_counted_by_their_tokens() -> None:
    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(
        Scheduler(SchedulerConfig(), kv, 64), FakeDevice(4), FAKE_FACTS, 1, open_gate()
    )
    core.add_request(request("a", list(range(20)), max_tokens=3))
    while core.has_unfinished:
        core.step()
    stats = core.stats()
    counts = dict(zip((*STEP_TOKENS_BOUNDS, "more"), stats.steps_by_tokens, strict=True))
    assert counts == {**dict.fromkeys(counts, 0), 32: 1, 1: 2}, "the prompt, then two tokens"
    assert stats.num_step_tokens == 22
