"""Many watchers, one question to the engine at a time."""

from __future__ import annotations

import asyncio

import pytest

from quire.errors import EngineDeadError
from quire.metrics.stats_poll import Poll


class Engine:
    def __init__(self) -> None:
        self.num_asked = 0
        self.is_dead = False
        self.answers = asyncio.Event()
        self.answers.set()

    async def ask(self) -> int:
        await self.answers.wait()
        if self.is_dead:
            raise EngineDeadError("gone")
        self.num_asked += 1
        return self.num_asked


async def test_watchers_at_the_same_time_share_an_answer() -> None:
    engine = Engine()
    engine.answers.clear()
    poll = Poll(engine.ask, 0)
    watchers = [asyncio.create_task(poll.get(0.0)) for _ in range(20)]
    await asyncio.sleep(0)
    engine.answers.set()
    assert await asyncio.gather(*watchers) == [1] * 20
    assert engine.num_asked == 1


async def test_an_answer_that_is_young_enough_is_used_again() -> None:
    engine = Engine()
    poll = Poll(engine.ask, 0)
    assert [await poll.get(3600.0), await poll.get(3600.0), await poll.get(0.0)] == [1, 1, 2]


async def test_the_last_answer_of_a_dead_engine_stays() -> None:
    engine = Engine()
    poll = Poll(engine.ask, 0)
    await poll.get(0.0)
    engine.is_dead = True
    assert await poll.get(0.0) == 1


async def test_what_goes_wrong_is_logged_once_and_makes_no_answer_young(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask() -> int:
        raise ValueError("no numbers")

    poll = Poll(ask, 7)
    assert [await poll.get(0.0), await poll.get(3600.0)] == [7, 7]
    assert poll.time == float("-inf")
    assert [record.message for record in caplog.records] == [
        "the engine's statistics are unavailable; older ones are shown"
    ]


async def test_an_engine_that_hangs_hangs_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.metrics.stats_poll._PATIENCE_S", 0.0)
    engine = Engine()
    engine.answers.clear()
    poll = Poll(engine.ask, 7)
    assert poll.silence_s == 0.0
    assert await poll.get(0.0) == 7
    first = poll.silence_s
    assert await poll.get(0.0) == 7
    assert poll.silence_s > first > 0.0  # of the same question
    engine.answers.set()
    while poll.silence_s:
        await asyncio.sleep(0)
    assert await poll.get(3600.0) == 1


async def test_a_new_answer_is_to_a_question_asked_from_now_on() -> None:
    engine = Engine()
    engine.answers.clear()
    poll = Poll(engine.ask, 0)
    before = asyncio.create_task(poll.get(0.0))
    await asyncio.sleep(0.01)
    late = [asyncio.create_task(poll.get_new()) for _ in range(5)]
    await asyncio.sleep(0.01)
    engine.answers.set()
    assert await before == 1
    assert await asyncio.gather(*late) == [2] * 5


async def test_there_is_no_new_answer_of_an_engine_that_is_dead_or_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quire.metrics.stats_poll._PATIENCE_S", 0.01)
    engine = Engine()
    poll = Poll(engine.ask, 0)
    assert not poll.has_answer
    assert await poll.get_new() == 1 and poll.has_answer
    engine.answers.clear()
    assert await poll.get_new() is None
    engine.is_dead = True
    engine.answers.set()
    assert await poll.get_new() is None
    assert await poll.get(0.0) == 1
