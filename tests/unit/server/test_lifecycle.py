"""The phases of a server with engines that load, die and come back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from quire.engine.async_engine import AsyncLLM
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.server.args import ServerArgs
from quire.server.errors import HTTPError
from quire.server.lifecycle import Lifecycle, RestartLimit
from quire.server.state import Phase, RunningRequest, ServerState
from tests.fakes.byte_tokenizer import VOCAB_SIZE
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FAIL_STEP
from tests.fakes.waiting import DEADLINE_S, until


def open_fake(watch: StartWatch) -> AsyncLLM:
    watch.enter("fake")
    return AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_FAKE_CORE)


async def kill(state: ServerState) -> None:
    """Make a step of the engine fail, which ends it."""
    assert state.engine is not None
    with pytest.raises(EngineDeadError, match="on fire"):
        async for _ in state.engine.generate({"prompt_token_ids": [FAIL_STEP]}, None, "x"):
            pass


class Run:
    """A lifecycle in the background."""

    def __init__(self, **kwargs: Any) -> None:
        self.state = ServerState(args=ServerArgs(**kwargs.pop("args", {})))
        kwargs = {"open_engine": open_fake, "restart_delay_s": 0, **kwargs}
        self.life = Lifecycle(self.state, **kwargs)
        self.task = asyncio.create_task(self.life.run())

    async def until(self, phase: Phase) -> None:
        await until(lambda: self.state.phase is phase)

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        self.life.close()


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Run]]:
    runs: list[Run] = []

    def make(**kwargs: Any) -> Run:
        runs.append(Run(**kwargs))
        return runs[-1]

    yield make
    for run in runs:
        await run.close()


async def test_it_is_loading_and_then_ready(start: Callable[..., Run]) -> None:
    go_on = threading.Event()

    def open_slowly(watch: StartWatch) -> AsyncLLM:
        watch.enter("slow")
        assert go_on.wait(DEADLINE_S)
        return open_fake(watch)

    run = start(open_engine=open_slowly)
    await until(lambda: run.state.start is not None and run.state.start.phase == "slow")
    assert run.state.phase is Phase.LOADING
    with pytest.raises(HTTPError, match="loading") as refused:
        run.state.require_engine()
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (503, "5")
    go_on.set()
    await run.until(Phase.READY)
    assert run.state.require_engine().facts.attention_backend == "fake"
    assert run.state.require_models().names == (fake_config().model.model,)
    assert list(run.state.phase_seconds) == ["slow", "fake"]


async def test_an_engine_that_does_not_start_is_the_end(start: Callable[..., Run]) -> None:
    def fail(watch: StartWatch) -> AsyncLLM:
        raise ValueError("no such model")

    run = start(open_engine=fail, may_restart=lambda: True)
    await run.task
    assert run.state.phase is Phase.DEAD and str(run.life.failure) == "no such model"


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (SystemExit("this model needs a licence"), "SystemExit: this model needs a licence"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
async def test_what_would_end_a_program_ends_the_start(
    start: Callable[..., Run], error: BaseException, cause: str
) -> None:
    def fail(watch: StartWatch) -> AsyncLLM:
        raise error

    run = start(open_engine=fail)
    await run.task
    assert run.state.phase is Phase.DEAD
    assert str(run.life.failure).splitlines()[-1] == f"Cause: {cause}"


async def test_an_engine_that_dies_is_the_end(start: Callable[..., Run]) -> None:
    run = start()
    await run.until(Phase.READY)
    await kill(run.state)
    await run.task
    assert run.state.phase is Phase.DEAD
    assert run.state.detail.endswith("RuntimeError: the fake device is on fire")
    assert "on fire" in str(run.life.failure)


async def test_an_engine_that_dies_may_come_back(start: Callable[..., Run]) -> None:
    run = start(may_restart=lambda: True)
    await run.until(Phase.READY)
    first = run.state.engine
    await kill(run.state)
    await until(lambda: run.state.engine is not first and run.state.phase is Phase.READY)
    assert run.life.failure is None


@pytest.mark.parametrize("restarts", [False, True])
async def test_a_dead_engine_is_not_ready_while_it_ends(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, restarts: bool
) -> None:
    run = start(may_restart=lambda: restarts)
    await run.until(Phase.READY)
    engine = run.state.engine
    assert engine is not None
    shutdown, may_end = engine.shutdown, threading.Event()

    def slowly() -> None:
        assert may_end.wait(DEADLINE_S)
        shutdown()

    monkeypatch.setattr(engine, "shutdown", slowly)
    await kill(run.state)
    await until(lambda: run.state.phase is not Phase.READY)
    assert run.state.phase is (Phase.LOADING if restarts else Phase.DEAD)
    assert not run.task.done()
    with pytest.raises(HTTPError, match="the engine died"):
        run.state.require_engine()
    may_end.set()
    if restarts:
        await run.until(Phase.READY)
    else:
        await run.task


async def test_a_server_that_drains_is_not_ready_again(start: Callable[..., Run]) -> None:
    may_start = threading.Event()
    may_start.set()

    def open_when_told(watch: StartWatch) -> AsyncLLM:
        assert may_start.wait(DEADLINE_S)
        return open_fake(watch)

    run = start(open_engine=open_when_told, may_restart=lambda: True)
    await run.until(Phase.READY)
    may_start.clear()
    await kill(run.state)
    await run.until(Phase.LOADING)
    await run.life.drain()
    may_start.set()
    await until(lambda: run.state.engine is not None)
    assert run.state.phase is Phase.DRAINING


async def test_it_comes_back_only_so_often(start: Callable[..., Run]) -> None:
    starts: list[int] = []

    def open_once(watch: StartWatch) -> AsyncLLM:
        starts.append(1)
        if len(starts) > 1:
            raise ValueError(f"no start number {len(starts)}")
        return open_fake(watch)

    run = start(open_engine=open_once, may_restart=RestartLimit(most=2).take)
    await run.until(Phase.READY)
    await kill(run.state)
    await run.task
    assert str(run.life.failure) == "no start number 3" and len(starts) == 3


def test_restarts_are_counted_in_a_window() -> None:
    now = 0.0
    limit = RestartLimit(most=2, window_s=10, clock=lambda: now)
    assert [limit.take(), limit.take(), limit.take()] == [True, True, False]
    now = 11.0
    assert limit.take() is True


def running(cancelled: list[str]) -> RunningRequest:
    return RunningRequest(
        request_id="r",
        endpoint="/v1/completions",
        model="m",
        arrival_time=0.0,
        cancel=lambda: None,
        drop=lambda: cancelled.append("r"),
    )


async def test_draining_waits_for_what_runs(start: Callable[..., Run]) -> None:
    run = start()
    await run.until(Phase.READY)
    cancelled: list[str] = []
    run.state.running.add(running(cancelled))
    drain = asyncio.create_task(run.life.drain())
    await run.until(Phase.DRAINING)
    with pytest.raises(HTTPError, match="draining"):
        run.state.require_engine()
    assert not drain.done()
    run.state.running.remove("r")
    await drain
    assert cancelled == []


async def test_draining_ends_what_takes_too_long(start: Callable[..., Run]) -> None:
    run = start(args={"shutdown_timeout": 0})
    await run.until(Phase.READY)
    cancelled: list[str] = []
    run.state.running.add(running(cancelled))
    await run.life.drain()
    assert cancelled == ["r"]


async def test_a_death_while_draining_is_the_end(start: Callable[..., Run]) -> None:
    run = start(may_restart=lambda: True)
    await run.until(Phase.READY)
    await run.life.drain()
    await kill(run.state)
    await run.task
    assert "on fire" in str(run.life.failure)


async def test_a_start_is_broken_off_with_the_server(start: Callable[..., Run]) -> None:
    ended = threading.Event()

    def open_until_ended(watch: StartWatch) -> AsyncLLM:
        watch.can_be_ended_by(ended.set)
        watch.enter("waiting")
        assert ended.wait(DEADLINE_S)
        raise EngineDeadError("it was killed")

    run = start(open_engine=open_until_ended)
    await until(lambda: run.state.start is not None and run.state.start.phase == "waiting")
    await run.close()
    assert ended.is_set()


async def test_a_missing_chat_template_is_found_before_anything_loads() -> None:
    state = ServerState(args=ServerArgs(chat_template="/nonexistent.jinja"))
    with pytest.raises(ValueError, match=r"nonexistent\.jinja"):
        Lifecycle(state, cast(Any, open_fake))


async def test_a_chat_template_may_be_a_file(
    start: Callable[..., Run], byte_tokenizer: Path, tmp_path: Path
) -> None:
    path = tmp_path / "t.jinja"
    path.write_text("{% for m in messages %}<{{ m.content }}>{% endfor %}")
    config = fake_config(folder=byte_tokenizer, skip_tokenizer_init=False, vocab_size=VOCAB_SIZE)

    def open_with_tokenizer(watch: StartWatch) -> AsyncLLM:
        return AsyncLLM(config, multiprocess_mode=False, build=BUILD_FAKE_CORE)

    run = start(open_engine=open_with_tokenizer, args={"chat_template": str(path)})
    await run.until(Phase.READY)
    assert run.state.chat is not None
    assert run.state.chat.render([{"role": "user", "content": "Hi"}]).text == "<Hi>"
