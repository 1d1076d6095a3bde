"""What the core does when something under it is broken."""

from __future__ import annotations

import pytest

from quire.config import SchedulerConfig
from quire.engine.core import EngineCore
from quire.errors import EngineDeadError
from quire.kv_cache.manager import KVCacheManager
from quire.scheduler.scheduler import Scheduler
from quire.step import StepPlan
from tests.fakes.device import FakeDevice, FakeResult
from tests.unit.scheduler.test_scheduler import FACTS, request


class BrokenScheduler(Scheduler):
    def schedule(self) -> StepPlan | None:
        raise AssertionError("two owners of one row")


class DeadDevice(FakeDevice):
    def submit(self, plan: StepPlan) -> FakeResult:
        raise EngineDeadError("the ranks are gone")


@pytest.mark.parametrize(
    ("scheduler", "device", "error"),
    [(BrokenScheduler, FakeDevice, AssertionError), (Scheduler, DeadDevice, EngineDeadError)],
)
def test_what_cannot_be_tried_again_ends_the_engine(
    scheduler: type[Scheduler], device: type[FakeDevice], error: type[Exception]
) -> None:
    kv = KVCacheManager(num_blocks=20, block_size=4)
    core = EngineCore(scheduler(SchedulerConfig(), kv, 64), device(4), FACTS, 1)  # type: ignore[arg-type]
    core.add_request(request("a", [1, 2]))
    with pytest.raises(error):
        core.step()
