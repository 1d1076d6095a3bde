"""The engine core in a thread of this process, for the asyncio front end.

Built, stepped and closed in that one thread, since device state belongs to threads.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from queue import Empty, SimpleQueue
from typing import TypeVar

from quire.config import EngineConfig
from quire.engine.client import CLOSED, MOST_STEPS_AT_ONCE, dead_error, why_dead
from quire.engine.core_loop import BUILD_CORE, run_core
from quire.engine.messages import (
    Answer,
    Ask,
    Command,
    Deltas,
    Failed,
    Loading,
    Query,
    Started,
    Stop,
)
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.step_output import CompletionDelta

T = TypeVar("T")

_JOIN_TIMEOUT_S = 10.0


class ThreadClient:
    """An `EngineClient` that may be used from several threads; one of them receives."""

    def __init__(
        self, config: EngineConfig, build: str = BUILD_CORE, watch: StartWatch | None = None
    ) -> None:
        self._channel = _QueueChannel()
        self._end: str | None = None
        self._asking = threading.Lock()
        thread = threading.Thread(
            target=_run, args=(build, config, self._channel), name="quire-core", daemon=True
        )
        thread.start()
        # At interpreter exit too: a thread that is killed inside a step can crash the process.
        self._stop = weakref.finalize(self, _stop_thread, thread, self._channel)
        while isinstance(started := self._channel.answers.get(), Loading):
            if watch is not None:
                watch.enter(started.phase)
        if isinstance(started, Failed):
            self._stop()
            raise started.to_exception()
        assert isinstance(started, Started)
        self.facts = started.facts

    def send(self, command: Command) -> None:
        self._check_alive()
        self._channel.commands.put(command)

    def receive(self) -> list[CompletionDelta]:
        self._check_alive()
        reply = self._channel.next_step()
        if isinstance(reply, Deltas):
            return reply.deltas
        raise self._dead(reply)

    def ask(self, query: Query[T]) -> T:
        with self._asking:
            self.send(Ask(query.name))
            reply = self._channel.answers.get()
        if isinstance(reply, Answer):
            value: T = reply.value
            return value
        raise self._dead(reply)

    def close(self) -> None:
        self._end = self._end or CLOSED
        self._stop()

    def _dead(self, reply: Loading | Started | Failed | Stop) -> EngineDeadError:
        if isinstance(reply, Failed):
            self._end = self._end or why_dead(reply)
            return dead_error(self._end, reply)
        self._end = self._end or CLOSED
        return EngineDeadError(self._end)

    def _check_alive(self) -> None:
        if self._end is not None:
            raise EngineDeadError(self._end)


class _QueueChannel:
    """Three queues; a `Stop` in the last two says that nothing follows."""

    _early: Failed | Stop | None = None  # was taken from ``steps`` before its turn

    def __init__(self) -> None:
        self.commands: SimpleQueue[Command] = SimpleQueue()
        self.steps: SimpleQueue[Deltas | Failed | Stop] = SimpleQueue()
        self.answers: SimpleQueue[Loading | Started | Answer | Failed | Stop] = SimpleQueue()

    def take(self, *, timeout: float | None) -> list[Command]:
        commands = []
        with contextlib.suppress(Empty):
            if timeout != 0:
                commands.append(self.commands.get(timeout=timeout))
            while True:
                commands.append(self.commands.get_nowait())
        return commands

    def next_step(self) -> Deltas | Failed | Stop:
        """Waits for it; the deltas of the steps that are there are one."""
        reply, self._early = self._early or self.steps.get(), None
        for _ in range(MOST_STEPS_AT_ONCE):
            if not isinstance(reply, Deltas) or self.steps.empty():
                break
            more = self.steps.get()
            if not isinstance(more, Deltas):
                self._early = more
                break
            reply.deltas.extend(more.deltas)
        return reply

    def put_step(self, reply: Deltas | Failed) -> None:
        self.steps.put(reply)

    def put_answer(self, reply: Loading | Started | Answer | Failed, client: str = "") -> None:
        self.answers.put(reply)  # a thread has one front end


def _run(build: str, config: EngineConfig, channel: _QueueChannel) -> None:
    run_core(build, config, channel)
    channel.steps.put(Stop())
    channel.answers.put(Stop())


def _stop_thread(thread: threading.Thread, channel: _QueueChannel) -> None:
    channel.commands.put(Stop())
    thread.join(_JOIN_TIMEOUT_S)
