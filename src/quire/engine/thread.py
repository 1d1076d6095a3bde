"""The engine core in a thread of this process, for the asyncio front end.

Built, stepped and closed in that one thread, since device state belongs to threads.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from queue import Empty, SimpleQueue

from quire.config import EngineConfig
from quire.engine.client import CLOSED
from quire.engine.core_loop import BUILD_CORE, run_core
from quire.engine.link import LinkClient
from quire.engine.messages import (
    Answer,
    Command,
    Deltas,
    Failed,
    Loading,
    Reply,
    Started,
    Stop,
)
from quire.engine.start import StartWatch

_JOIN_TIMEOUT_S = 10.0


class ThreadClient(LinkClient):
    """Starts the thread and waits until its core is ready; ``watch`` follows the start."""

    def __init__(
        self, config: EngineConfig, build: str = BUILD_CORE, watch: StartWatch | None = None
    ) -> None:
        core = _CoreThread(build, config)
        # At interpreter exit too: a thread that is killed inside a step can crash the process.
        self._stop = weakref.finalize(self, core.stop)
        while isinstance(started := core.wait_answer(), Loading):
            if watch is not None:
                watch.enter(started.phase)
        if isinstance(started, Failed):
            self._stop()
            raise started.to_exception()
        assert isinstance(started, Started)
        super().__init__(core, started.facts)

    def _free(self) -> None:
        self._stop.detach()  # it has stopped

    def _lose(self) -> None:
        super()._lose()
        self._stop.detach()


class _CoreThread:
    """The thread and its queues; a `Link` to it."""

    client = ""

    def __init__(self, build: str, config: EngineConfig) -> None:
        self._channel = _QueueChannel()
        self._thread = threading.Thread(
            target=run_core, args=(build, config, self._channel), name="quire-core", daemon=True
        )
        self._thread.start()

    def send(self, command: Command) -> None:
        self._channel.commands.put(command)

    def has_step(self) -> bool:
        return not self._channel.steps.empty()

    def wait_step(self) -> Reply | None:
        return _next(self._channel.steps)

    def wait_answer(self) -> Reply | None:
        return _next(self._channel.answers)

    def stop(self) -> None:
        self._channel.commands.put(Stop())
        if self._thread is not threading.current_thread():  # as when its garbage collector calls
            self._thread.join(_JOIN_TIMEOUT_S)
        self._channel.steps.put(None)
        self._channel.answers.put(None)

    def close(self) -> None:
        pass  # the queues are freed with their last user

    def obituary(self) -> str:
        return CLOSED  # a core in a thread reports its failures itself


_Replies = SimpleQueue[Reply | None]  # None: nothing follows


def _next(replies: _Replies) -> Reply | None:
    reply = replies.get()
    if reply is None:
        replies.put(None)  # for the next who waits
    return reply


class _QueueChannel:
    """The core's end of the queues: its `CoreChannel`."""

    def __init__(self) -> None:
        self.commands: SimpleQueue[Command] = SimpleQueue()
        self.steps: _Replies = SimpleQueue()
        self.answers: _Replies = SimpleQueue()

    def take(self, *, timeout: float | None) -> list[Command]:
        commands = []
        with contextlib.suppress(Empty):
            if timeout != 0:
                commands.append(self.commands.get(timeout=timeout))
            while True:
                commands.append(self.commands.get_nowait())
        return commands

    def put_step(self, reply: Deltas | Failed) -> None:
        self.steps.put(reply)

    def put_answer(self, reply: Loading | Started | Answer | Failed, client: str = "") -> None:
        self.answers.put(reply)  # a thread has one front end
