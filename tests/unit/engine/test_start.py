from __future__ import annotations

import pytest

from quire.engine.process import ProcessClient
from quire.engine.start import StartWatch
from quire.engine.thread import ThreadClient
from quire.errors import EngineDeadError
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE


def test_phases_follow_one_another() -> None:
    seen: list[str] = []
    watch = StartWatch(seen.append)
    assert watch.phase is None and watch.phase_seconds() == {}
    watch.enter("one")
    watch.enter("two")
    assert watch.phase == "two" and seen == ["one", "two"]
    assert list(watch.phase_seconds()) == ["one", "two"]
    assert min(watch.phase_seconds().values()) >= 0


def test_a_start_that_is_cancelled_early_is_ended_when_it_can_be() -> None:
    ends: list[str] = []
    watch = StartWatch()
    watch.cancel()
    watch.can_be_ended_by(lambda: ends.append("late"))
    other = StartWatch()
    other.can_be_ended_by(lambda: ends.append("at once"))
    other.cancel()
    assert ends == ["late", "at once"]


def test_what_has_started_is_not_broken_off() -> None:
    ends: list[str] = []
    watch = StartWatch()
    watch.can_be_ended_by(lambda: ends.append("too late"))
    watch.has_ended()
    watch.cancel()
    assert ends == []


@pytest.mark.parametrize(
    ("make", "phases"), [(ProcessClient, ["core process", "weights"]), (ThreadClient, ["weights"])]
)
def test_the_core_tells_its_phases(make: type, phases: list[str]) -> None:
    watch = StartWatch()
    make(fake_config(), BUILD_FAKE_CORE, watch).close()
    assert list(watch.phase_seconds()) == phases


def test_a_core_that_is_starting_can_be_ended() -> None:
    watch = StartWatch()
    watch.cancel()
    with pytest.raises(EngineDeadError, match="SIGKILL"):
        ProcessClient(fake_config(), BUILD_FAKE_CORE, watch)
