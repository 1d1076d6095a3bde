"""Several front ends of one core, each with its own requests."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from quire.engine.attached import AttachedClient
from quire.engine.messages import (
    BLOCK_MAP,
    RESET_PREFIX_CACHE,
    STATS,
    Abort,
    AddRequest,
    Detach,
    Finish,
)
from quire.engine.process import ProcessClient
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.request import EngineRequest, FinishReason, RowSampling
from quire.step_output import CompletionDelta
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FAIL_STEP, REFUSE

FOREVER = 1_000_000


@pytest.fixture
def owner() -> Iterator[ProcessClient]:
    made = ProcessClient(fake_config(), BUILD_FAKE_CORE)
    yield made
    made.close()


@pytest.fixture
def fronts(owner: ProcessClient) -> Iterator[list[AttachedClient]]:
    made = [AttachedClient(owner.folder, name) for name in ("0", "1")]
    yield made
    for front in made:
        front.close()


def send(front: AttachedClient, prompt: list[int], max_tokens: int = 2, n: int = 1) -> None:
    request = EngineRequest(
        request_id="same",
        prompt_token_ids=prompt,
        sampling=RowSampling(),
        max_tokens=max_tokens,
        n=n,
    )
    front.send(AddRequest(request))


def run_to_end(front: AttachedClient) -> list[CompletionDelta]:
    deltas: list[CompletionDelta] = []
    while not deltas or deltas[-1].finish_reason is None:
        deltas += front.receive()
    return deltas


def test_each_gets_its_own_under_the_same_id(fronts: list[AttachedClient]) -> None:
    send(fronts[0], [5, 6])
    send(fronts[1], [7, 8])
    for front, tokens in zip(fronts, ([5, 6], [7, 8]), strict=True):
        deltas = run_to_end(front)
        assert {delta.request_id for delta in deltas} == {"same"}
        assert [token for delta in deltas for token in delta.new_token_ids] == tokens


def test_each_gets_its_own_answers(fronts: list[AttachedClient]) -> None:
    assert [front.ask(BLOCK_MAP) for front in fronts] == [bytes([0, 1, 2, 3])] * 2
    send(fronts[0], [5], FOREVER)
    assert fronts[0].receive()
    assert fronts[1].ask(STATS).num_running == 1
    assert fronts[1].ask(RESET_PREFIX_CACHE) is False
    assert fronts[0].facts == fronts[1].facts


def test_one_aborts_only_its_own(fronts: list[AttachedClient]) -> None:
    send(fronts[0], [5], FOREVER)
    send(fronts[1], [5], FOREVER)
    assert fronts[1].receive()
    fronts[0].send(Abort(["same"]))
    assert fronts[0].ask(STATS).num_running == 1
    assert fronts[1].receive()


def test_an_abort_that_keeps_tokens_tells_its_front_their_end(
    fronts: list[AttachedClient],
) -> None:
    send(fronts[0], [5], FOREVER)
    send(fronts[1], [5], FOREVER)
    fronts[0].send(Abort(["same"], keeps_tokens=True))
    told = run_to_end(fronts[0])
    assert {delta.request_id for delta in told} == {"same"}
    assert told[-1].finish_reason is FinishReason.ABORT
    assert fronts[0].ask(STATS).num_running == 1
    assert fronts[1].receive()


def test_a_refusal_reaches_who_asked(fronts: list[AttachedClient]) -> None:
    send(fronts[1], [REFUSE])
    assert [delta.finish_reason for delta in fronts[1].receive()] == [FinishReason.ERROR]


def test_what_one_had_running_ends_with_it(
    owner: ProcessClient, fronts: list[AttachedClient]
) -> None:
    send(fronts[0], [5], FOREVER)
    send(fronts[1], [6], FOREVER)
    assert all(front.receive() for front in fronts)
    assert owner.ask(STATS).num_running == 2
    owner.send(Detach("0"))
    assert owner.ask(STATS).num_running == 1
    send(fronts[0], [5], FOREVER)  # its last words may come late
    assert fronts[1].ask(STATS).num_running == 1
    assert fronts[1].receive()


def test_a_completion_whose_end_is_told_twice_does_not_hide_the_other(
    owner: ProcessClient, fronts: list[AttachedClient]
) -> None:
    send(fronts[0], [5], FOREVER, n=2)
    assert fronts[0].receive()
    for _ in range(2):
        fronts[0].send(Finish("same", 0))
    assert fronts[0].ask(STATS).num_running == 1
    owner.send(Detach("0"))
    assert owner.ask(STATS).num_running == 0


def test_a_new_one_may_join_at_any_time(owner: ProcessClient, fronts: list[AttachedClient]) -> None:
    send(fronts[0], [5], FOREVER)
    late = AttachedClient(owner.folder, "2")
    send(late, [9, 8])
    assert run_to_end(late)[-1].finish_reason is FinishReason.LENGTH
    late.close()


def test_a_failed_step_is_told_to_all(owner: ProcessClient, fronts: list[AttachedClient]) -> None:
    send(fronts[0], [FAIL_STEP])
    for client in (*fronts, owner):
        with pytest.raises(EngineDeadError, match="the fake device is on fire"):
            client.receive()


def test_a_death_that_its_owner_tells_wakes_whoever_waits(fronts: list[AttachedClient]) -> None:
    teller = threading.Thread(target=lambda: fronts[0].core_died("it was unplugged"))
    teller.start()
    with pytest.raises(EngineDeadError, match="it was unplugged"):
        fronts[0].receive()
    teller.join()
    with pytest.raises(EngineDeadError, match="it was unplugged"):
        fronts[0].ask(STATS)
    assert fronts[1].ask(STATS).num_running == 0


def test_joining_a_dead_core_can_be_broken_off(owner: ProcessClient) -> None:
    os.kill(owner.pid, signal.SIGKILL)
    watch = StartWatch()
    watch.cancel()
    with pytest.raises(EngineDeadError, match="stopped"):
        AttachedClient(owner.folder, "0", watch)
