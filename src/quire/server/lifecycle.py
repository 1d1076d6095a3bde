"""The life of a server's engine: it loads while the port listens, drains, dies, may be restarted.

Owns the changes of `Phase`; knows nothing about HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from quire.chat_template import ChatRenderer
from quire.chat_template_choice import load_chat_template
from quire.engine.async_engine import AsyncLLM
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.resolve import default_served_name
from quire.server.answer_formats import AnswerFormats
from quire.server.chat_prompt import warn_of_templates
from quire.server.state import Phase, ServedModels, ServerState

logger = logging.getLogger(__name__)

_POLL_S = 0.05
RESTART_DELAY_S = 1.0
_UNWIND_S = 1.0  # for a cancelled start to end

OpenEngine = Callable[[StartWatch], AsyncLLM]  # returns when the model is loaded


class RestartLimit:
    """Allows ``most`` restarts in ``window_s`` seconds: an engine that keeps dying is left dead."""

    def __init__(
        self,
        most: int = 3,
        window_s: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most, self._window_s, self._clock = most, window_s, clock
        self._when: list[float] = []

    def take(self) -> bool:
        """Count a restart; False if it is one too many."""
        now = self._clock()
        self._when = [when for when in self._when if now - when < self._window_s]
        self._when.append(now)
        return len(self._when) <= self._most


class Lifecycle:
    """Runs in the server's event loop; ``failure`` is the error that ended the server, if any."""

    def __init__(
        self,
        state: ServerState,
        open_engine: OpenEngine,
        may_restart: Callable[[], bool] = lambda: False,
        restart_delay_s: float = RESTART_DELAY_S,
    ) -> None:
        self._state = state
        self._open_engine = open_engine
        self._may_restart = may_restart
        self._restart_delay_s = restart_delay_s
        self._chat_template = load_chat_template(state.args.chat_template)
        self._start: _Start | None = None
        self.failure: BaseException | None = None

    async def run(self) -> None:
        """Load, then watch; returns when the engine is gone for good."""
        try:
            await self._load()
        except Exception as error:
            self._fail(error, "the engine did not start")
            return
        while await self._outlives_the_engine():
            pass

    async def drain(self) -> None:
        """Refuse new requests; return when the running ones have ended, of which those that take
        longer than ``shutdown_timeout`` are aborted."""
        args, running = self._state.args, self._state.running
        self._state.enter(Phase.DRAINING, "the server is shutting down")
        deadline = time.monotonic() + args.shutdown_timeout
        if len(running):
            logger.info(
                "finishing %d requests, for at most %g s", len(running), args.shutdown_timeout
            )
        while len(running) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
        for request in running:
            logger.warning("request %s did not finish in time", request.request_id)
            request.drop()

    def close(self) -> None:
        """End the engine and free what it holds; also one that is still loading."""
        if self._start is not None:
            self._start.cancel()
        if self._state.engine is not None:
            self._state.engine.shutdown()
        self._state.inputs.close()
        self._state.counts.close()
        self._state.watch.close()

    async def _load(self) -> None:
        state = self._state
        state.start = StartWatch()
        self._enter(Phase.LOADING, "the model is loading")
        self._start = _Start(self._open_engine, state.start)
        engine = await self._start.engine()
        self._start = None
        model = engine.config.model
        state.models = ServedModels(
            names=model.served_model_name or (model.model,),
            root=default_served_name(model.model),
            max_model_len=engine.model_config.max_model_len,
            created=int(time.time()),
            max_tokens_limit=model.max_tokens_limit,
        )
        tokenizer = engine.front.tokenizer
        state.chat = None if tokenizer is None else ChatRenderer(tokenizer, self._chat_template)
        state.formats = AnswerFormats.of(state.args, state.chat)
        if state.place is None or state.place.index == 0:  # once, however many processes
            warn_of_templates(state)
        state.watch.engine_ready(engine, state.models.names[0])
        state.engine = engine
        state.phase_seconds = state.start.phase_seconds()
        took = sum(state.phase_seconds.values())
        state.ready_seconds = state.ready_seconds or time.time() - state.started
        self._enter(Phase.READY, "ready")
        logger.info("ready: %s after %.1f s", ", ".join(state.models.names), took)

    async def _outlives_the_engine(self) -> bool:
        """Wait until the engine has died; True when another one has been started."""
        engine = self._state.engine
        assert engine is not None
        while engine.dead_error is None:
            await asyncio.sleep(_POLL_S)
        may_go_on = self._may_go_on(engine.dead_error)  # first: the server must not look ready
        self._state.engine = None
        with contextlib.suppress(Exception):  # in a thread: its process may take seconds to end
            await asyncio.to_thread(engine.shutdown)
        while may_go_on:
            await asyncio.sleep(self._restart_delay_s)
            try:
                await self._load()
                return True
            except Exception as error:
                may_go_on = self._may_go_on(error)
        return False

    def _may_go_on(self, cause: BaseException) -> bool:
        """Whether a new engine may be started; otherwise the server has failed."""
        if self._state.phase is Phase.DRAINING or not self._may_restart():
            self._fail(cause, "the engine died")
            return False
        logger.error("the engine died and is started again: %s", last_line(cause))
        self._state.enter(Phase.LOADING, "the engine died and is started again")
        return True

    def _enter(self, phase: Phase, detail: str) -> None:
        """Enter a phase, unless the server is draining."""
        if self._state.phase is not Phase.DRAINING:
            self._state.enter(phase, detail)

    def _fail(self, error: BaseException, detail: str) -> None:
        self.failure = error
        cause = f"{detail}: {last_line(error)}" if isinstance(error, EngineDeadError) else detail
        self._state.enter(Phase.DEAD, cause)


class _Start:
    """One start of an engine, in a daemon thread, which unlike those of a pool does not delay the
    exit of the process."""

    def __init__(self, open_engine: OpenEngine, watch: StartWatch) -> None:
        self._open_engine = open_engine
        self._watch = watch
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[AsyncLLM] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="quire-load", daemon=True)
        self._thread.start()

    async def engine(self) -> AsyncLLM:
        return await self._opened

    def cancel(self) -> None:
        """Cancel the start; a download goes on, and ends with the process."""
        self._watch.cancel()
        self._thread.join(_UNWIND_S)

    def _run(self) -> None:
        engine, failed = None, None
        try:
            engine = self._open_engine(self._watch)
        except BaseException as error:
            failed = as_exception(error)
        try:
            self._loop.call_soon_threadsafe(self._settle, engine, failed)
        except RuntimeError:  # the loop is closed: the server is ending
            if engine is not None:
                engine.shutdown()

    def _settle(self, engine: AsyncLLM | None, error: Exception | None) -> None:
        if self._opened.cancelled():
            if engine is not None:
                engine.shutdown()
        elif engine is not None:
            self._opened.set_result(engine)
        elif error is not None:
            self._opened.set_exception(error)


def as_exception(error: BaseException) -> Exception:
    """The error of a failed start as an ``Exception``. Others, such as the ``SystemExit`` of a
    model's own code, must not reach the event loop, and are wrapped."""
    if isinstance(error, Exception):
        return error
    why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    failed = EngineDeadError(f"The engine did not start.\nCause: {why}")
    failed.__cause__ = error
    return failed


def last_line(error: BaseException) -> str:
    """The last line of an error, where errors of the engine have their root cause."""
    return (str(error) or type(error).__name__).strip().splitlines()[-1]
