"""Requests of an offline call are computed while the rest of them is still being made."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from quire.engine.client import InprocClient
from quire.engine.input_processor import ProcessedRequest
from quire.engine.llm_engine import LLMEngine
from quire.engine.offline import OfflineRunner
from quire.errors import EngineDeadError, RequestError
from quire.outputs import RequestOutput
from quire.prompts import ParsedPrompt
from quire.sampling_params import RequestOutputKind, SamplingParams
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FakeCore

PARAMS = SamplingParams(max_tokens=2, output_kind=RequestOutputKind.FINAL_ONLY)
STEP_TOKENS = 8


@pytest.fixture
def engine() -> Iterator[LLMEngine]:
    config = fake_config()
    limits = dataclasses.replace(config.scheduler, max_num_batched_tokens=STEP_TOKENS)
    made = LLMEngine(dataclasses.replace(config, scheduler=limits), build=BUILD_FAKE_CORE)
    yield made
    made.close()


def fake_core_of(engine: LLMEngine) -> FakeCore:
    assert isinstance(engine._client, InprocClient)
    core = engine._client._core
    assert isinstance(core, FakeCore)
    return core


def requests_of(
    engine: LLMEngine, count: int, steps_seen: list[int], wrong: int | None = None
) -> Iterator[ProcessedRequest]:
    """With four tokens each; notes how many steps had been done when each was made."""
    for i in range(count):
        steps_seen.append(engine.stats().num_steps)
        token = 10**6 if i == wrong else 5
        yield engine.front.process(str(i), ParsedPrompt(token_ids=[token] * 4), PARAMS)


def test_later_requests_are_made_when_the_first_are_computed(engine: LLMEngine) -> None:
    runner = OfflineRunner(engine, no_time_s=0.0)
    assert runner.tokens_at_once >= 2 * STEP_TOKENS
    at_once = runner.tokens_at_once // 4
    steps_seen: list[int] = []
    outputs = list(runner.run(requests_of(engine, 4 * at_once, steps_seen)))
    assert sorted(int(output.request_id) for output in outputs) == list(range(4 * at_once))
    assert all(output.outputs[0].token_ids == [5, 5] for output in outputs)
    assert steps_seen[:at_once] == [0] * at_once
    assert 0 < steps_seen[at_once] < steps_seen[2 * at_once] < steps_seen[3 * at_once]


def test_more_are_queued_before_a_step_where_they_are_made_in_no_time(engine: LLMEngine) -> None:
    steps_seen: list[int] = []
    outputs = list(OfflineRunner(engine, no_time_s=60.0).run(requests_of(engine, 40, steps_seen)))
    assert len(outputs) == 40
    assert steps_seen == [0] * 40


def test_more_time_is_taken_while_steps_are_in_flight(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count()  # a second each time that somebody looks
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr("quire.engine.offline.time", clock)
    runner = OfflineRunner(engine, no_time_s=2.0)
    first, at_once = STEP_TOKENS // 4, runner.tokens_at_once // 4
    # None looks before there are enough, nor too late.
    parts = [first + 1, at_once - first + 7, at_once + 7, 1]
    steps_seen: list[int] = []
    assert len(list(runner.run(requests_of(engine, sum(parts), steps_seen)))) == sum(parts)
    seen = iter(steps_seen)
    before, beside, later, last = [set(itertools.islice(seen, part)) for part in parts]
    assert before == beside == {0}
    assert len(later) == 1 and 0 < min(later) < min(last)


def test_the_first_step_begins_while_later_requests_are_made(engine: LLMEngine) -> None:
    core = fake_core_of(engine)
    runner = OfflineRunner(engine, no_time_s=0.0)
    assert len(list(runner.run(requests_of(engine, 30, [])))) == 30
    assert core.begun_with == [STEP_TOKENS // 4]
    assert len(list(runner.run(requests_of(engine, STEP_TOKENS // 4 - 1, [])))) == 1
    assert core.begun_with == [STEP_TOKENS // 4]


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_requests_are_all_queued_before_the_first_step(engine: LLMEngine, count: int) -> None:
    steps_seen: list[int] = []
    outputs = list(OfflineRunner(engine).run(requests_of(engine, count, steps_seen)))
    assert len(outputs) == count
    assert steps_seen == [0] * count


def test_what_a_step_calls_cannot_wait_for_another_step(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, step = OfflineRunner(engine), engine.step

    def inside() -> list[RequestOutput]:
        with pytest.raises(RequestError, match="in the middle of a step"):
            list(runner.run(requests_of(engine, 1, [])))
        return step()

    monkeypatch.setattr(engine, "step", inside)
    outputs = list(runner.run(requests_of(engine, 2, [])))
    assert [output.outputs[0].token_ids for output in outputs] == [[5, 5]] * 2


def test_what_the_first_step_calls_cannot_wait_for_another_step(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, called = OfflineRunner(engine, no_time_s=0.0), []

    def inside() -> None:
        with pytest.raises(RequestError, match="in the middle of a step"):
            list(runner.run(requests_of(engine, 1, [])))
        called.append(True)

    monkeypatch.setattr(fake_core_of(engine), "begin", inside)
    assert len(list(runner.run(requests_of(engine, 9, [])))) == 9
    assert called


def test_an_error_of_a_late_request_ends_the_early_ones(engine: LLMEngine) -> None:
    runner = OfflineRunner(engine, no_time_s=0.0)
    with pytest.raises(ValueError, match="token id 1000000"):
        list(runner.run(requests_of(engine, 40, [], wrong=30)))
    assert not engine.has_unfinished_requests()
    assert len(list(runner.run(requests_of(engine, 9, [])))) == 9


def test_ctrl_c_behind_queuing_ends_what_was_queued(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = engine.submit

    def interrupted(requests: list[ProcessedRequest]) -> None:
        submit(requests)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(engine, "submit", interrupted)
        list(OfflineRunner(engine).run(requests_of(engine, 3, [])))
    assert not engine.has_unfinished_requests() and not fake_core_of(engine).running


def test_a_call_that_is_refused_spares_the_owner_of_its_id(engine: LLMEngine) -> None:
    engine.add_request("0", [7], SamplingParams(max_tokens=3))
    with pytest.raises(ValueError, match="request id '0' is in use"):
        list(OfflineRunner(engine).run(requests_of(engine, 3, [])))
    assert engine.get_num_unfinished_requests() == 1


ENDLESS = 10**9  # tokens


@pytest.fixture
def distant() -> Iterator[LLMEngine]:
    """An engine whose core is in a process of its own."""
    config = fake_config(max_model_len=2 * ENDLESS)
    made = LLMEngine(config, multiprocess_mode=True, build=BUILD_FAKE_CORE)
    yield made
    made.close()


def endless(engine: LLMEngine, request_id: str) -> ProcessedRequest:
    params = dataclasses.replace(PARAMS, max_tokens=ENDLESS)
    return engine.front.process(request_id, ParsedPrompt(token_ids=[5]), params)


def test_a_call_that_waits_for_another_process_keeps_nobody_waiting(distant: LLMEngine) -> None:
    runner = OfflineRunner(distant)
    is_waiting, ends, found = threading.Event(), [], []
    wait = distant.wait

    def told(timeout_s: float | None = None) -> bool:
        is_waiting.set()
        return wait(timeout_s)

    distant.wait = told  # type: ignore[method-assign]

    def wait_for_ever() -> None:
        with pytest.raises(EngineDeadError) as caught:
            list(runner.run([endless(distant, "long")]))
        ends.append(caught.value)

    def ask() -> None:
        assert is_waiting.wait(20)
        for _ in range(3):
            found.extend(runner.run(requests_of(distant, 2, [])))
        stream = runner.run([endless(distant, "left")])
        stream.close()

    long, short = threading.Thread(target=wait_for_ever), threading.Thread(target=ask)
    for thread in (long, short):
        thread.start()
    short.join(20)
    is_alive = short.is_alive()
    distant.close()
    for thread in (long, short):
        thread.join(20)
    assert not is_alive
    assert [output.outputs[0].token_ids for output in found] == [[5, 5]] * 6
    assert len(ends) == 1


_ENDS_WITH_A_HALF_READ_STREAM = """
from quire.engine.llm_engine import LLMEngine
from quire.engine.offline import OfflineRunner
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE
from tests.unit.engine.test_offline import ENDLESS, endless, requests_of
config = fake_config(max_model_len=2 * ENDLESS)
engine = LLMEngine(config, multiprocess_mode=True, build=BUILD_FAKE_CORE)
outputs = OfflineRunner(engine).run([*requests_of(engine, 1, []), endless(engine, "long")])
next(outputs)
"""


def test_a_program_may_end_before_a_stream_of_another_process_has() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _ENDS_WITH_A_HALF_READ_STREAM]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_whoever_waits_goes_on_when_the_one_who_stepped_for_all_has_left(
    distant: LLMEngine,
) -> None:
    runner = OfflineRunner(distant)
    found: dict[int, list[list[int]]] = {}

    def ask(number: int) -> None:
        requests = [
            distant.front.process(f"{number}-{i}", ParsedPrompt(token_ids=[number + 5]), PARAMS)
            for i in range(50)
        ]
        found[number] = [list(output.outputs[0].token_ids) for output in runner.run(requests)]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {number: [[number + 5] * 2] * 50 for number in range(4)}
    assert not distant.has_unfinished_requests()


def test_a_call_that_feeds_the_engine_goes_on_beside_one_that_waits(distant: LLMEngine) -> None:
    """Its next requests are made after a step that the other thread has done."""
    limits = dataclasses.replace(distant.config.scheduler, max_num_batched_tokens=STEP_TOKENS)
    distant.config = dataclasses.replace(distant.config, scheduler=limits)
    runner = OfflineRunner(distant, no_time_s=0.0)
    stream = dataclasses.replace(PARAMS, max_tokens=ENDLESS, output_kind=RequestOutputKind.DELTA)
    long = runner.run([distant.front.process("long", ParsedPrompt(token_ids=[5]), stream)])
    found: list[RequestOutput] = []
    feeding = threading.Thread(
        target=lambda: found.extend(runner.run(requests_of(distant, 40, [])))
    )
    next(long)
    feeding.start()
    while feeding.is_alive():
        next(long)
    long.close()
    assert len(found) == 40


def test_a_stream_cannot_be_read_inside_a_step(
    engine: LLMEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, step = OfflineRunner(engine), engine.step
    kind = dataclasses.replace(PARAMS, output_kind=RequestOutputKind.DELTA, max_tokens=9)
    stream = runner.run([engine.front.process("s", ParsedPrompt(token_ids=[5]), kind)])
    next(stream)

    def inside() -> list[RequestOutput]:
        monkeypatch.setattr(engine, "step", step)  # once is enough: the error ends the stream
        with pytest.raises(RequestError, match="in the middle of a step"):
            next(stream)
        return step()

    monkeypatch.setattr(engine, "step", inside)
    assert len(list(runner.run(requests_of(engine, 2, [])))) == 2
    assert not engine.has_unfinished_requests()
