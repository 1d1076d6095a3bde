"""Who watches an engine is told once of each request's start and end, however it ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import Observers, RequestEnd
from quire.errors import EngineDeadError
from quire.sampling_params import RequestOutputKind, SamplingParams
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FAIL_ALONE, FAIL_STEP
from tests.fakes.waiting import DEADLINE_S


class Notes:
    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[RequestEnd] = []

    def request_started(self, request: ProcessedRequest) -> None:
        self.started.append(request.engine.request_id)

    def request_ended(self, end: RequestEnd) -> None:
        self.ended.append(end)


class Broken:
    """Cannot take notes: its disk is full."""

    def request_started(self, request: ProcessedRequest) -> None:
        raise OSError("no space left")

    def request_ended(self, end: RequestEnd) -> None:
        raise OSError("no space left")


class Unguarded(Notes):
    """Breaks the promise of its protocol."""

    def request_ended(self, end: RequestEnd) -> None:
        raise OSError("no space left")


@pytest.fixture
async def engine() -> AsyncIterator[AsyncLLM]:
    config = fake_config(max_model_len=10**9)
    made = AsyncLLM(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)
    yield made
    made.shutdown()


@pytest.fixture
def notes(engine: AsyncLLM) -> Notes:
    notes = Notes()
    engine.front.observe(Observers([notes]))
    return notes


async def run(engine: AsyncLLM, token_ids: list[int], **params: object) -> None:
    chosen = SamplingParams(**{"max_tokens": 4, **params})  # type: ignore[arg-type]
    async for _ in engine.generate(token_ids, chosen, "r"):
        pass


def ends(notes: Notes) -> list[tuple[str, list[tuple[int, str]]]]:
    return [
        (end.request.engine.request_id, [(c.num_tokens, c.reason.value) for c in end.completions])
        for end in notes.ended
    ]


@pytest.mark.parametrize("kind", list(RequestOutputKind))
async def test_all_completions_are_told_whatever_the_consumer_reads(
    engine: AsyncLLM, notes: Notes, kind: RequestOutputKind
) -> None:
    await run(engine, [10, 11], n=2, temperature=1.0, output_kind=kind)
    assert notes.started == ["r"]
    assert ends(notes) == [("r", [(4, "length"), (4, "length")])]
    assert (notes.ended[0].num_prompt_tokens, notes.ended[0].num_generation_tokens) == (2, 8)


async def test_a_request_that_fails_alone(engine: AsyncLLM, notes: Notes) -> None:
    await run(engine, [FAIL_ALONE])
    assert ends(notes) == [("r", [(0, "error")])]


async def test_a_consumer_that_leaves(engine: AsyncLLM, notes: Notes) -> None:
    endless = SamplingParams(max_tokens=None, output_kind=RequestOutputKind.DELTA)
    outputs = engine.generate([10, 11], endless, "r")
    await anext(outputs)
    await outputs.aclose()
    ((_, ((num_tokens, reason),)),) = ends(notes)
    assert reason == "abort"
    assert num_tokens > 0


async def test_an_engine_that_dies_ends_its_requests(engine: AsyncLLM, notes: Notes) -> None:
    with pytest.raises(EngineDeadError):
        await run(engine, [FAIL_STEP])
    assert ends(notes) == [("r", [(0, "error")])]


async def test_what_an_observer_cannot_do_is_logged_once_and_stops_nobody(
    engine: AsyncLLM, caplog: pytest.LogCaptureFixture
) -> None:
    notes = Notes()
    engine.front.observe(Observers([Broken(), notes]))
    for _ in range(2):
        await asyncio.wait_for(run(engine, [10, 11]), DEADLINE_S)
    assert notes.started == ["r", "r"]
    assert ends(notes) == [("r", [(4, "length")])] * 2
    (record,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "Broken" in record.getMessage() and "no space left" in caplog.text
    assert record.exc_info is not None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_consumers_hear_of_an_end_that_cannot_be_noted(engine: AsyncLLM) -> None:
    engine.front.observe(Unguarded())
    with pytest.raises(EngineDeadError, match="on fire"):
        await asyncio.wait_for(run(engine, [FAIL_STEP]), DEADLINE_S)
