"""How a front end talks to an engine core, wherever the core runs.

`InprocClient` is plain calls: the core steps when someone receives. `thread.py` and `process.py`
have the clients of cores that step by themselves. Knows nothing about text.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from quire.config import EngineConfig
from quire.engine.core_loop import BUILD_CORE, apply_command, build_by_name
from quire.engine.messages import Command, CoreTraceback, Failed, Query
from quire.errors import EngineDeadError
from quire.step_output import CompletionDelta, EngineFacts

T = TypeVar("T")

MOST_STEPS_AT_ONCE = 64  # most steps whose deltas one `receive` returns


class EngineClient(Protocol):
    """One engine core. After it has died every call raises `EngineDeadError` with the cause."""

    @property
    def facts(self) -> EngineFacts: ...

    def send(self, command: Command) -> None:
        """Give a command that has no answer: `AddRequest`, `Abort`, `Finish`."""
        ...

    def receive(self) -> list[CompletionDelta]:
        """The deltas of one or more steps; may wait for them. For one thread at a time."""
        ...

    def ask(self, query: Query[T]) -> T:
        """Put a question and wait for its answer."""
        ...

    def close(self) -> None:
        """End the core and free what it holds; a second call does nothing."""
        ...


class InprocClient:
    """The core in this thread: it plans and ends steps inside `begin` and `receive` only.

    Questions may come from other threads: they wait for the end of a step. What a step calls in its
    own thread, such as a logits processor, may ask as well, and is answered at once.
    """

    def __init__(self, config: EngineConfig, build: str = BUILD_CORE) -> None:
        self._core = build_by_name(build, config)
        self._using = threading.RLock()  # over the core
        self._end: str | None = None  # why the core cannot be used any more
        self._closed = False
        self.facts = self._core.facts
        call_in_forks(self._lose)

    def send(self, command: Command) -> None:
        with self._using:
            self._check_alive()
            apply_command(self._core, command)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether `receive` has something to do, which it always has: it makes the steps."""
        return True

    def begin(self) -> None:
        """Start a step if the core is idle, without waiting for its result."""
        with self._stepping():
            self._core.begin()

    def receive(self) -> list[CompletionDelta]:
        with self._stepping():
            return self._core.step() if self._core.has_unfinished else []

    def ask(self, query: Query[T]) -> T:
        with self._using:
            self._check_alive()
            return query.answer(self._core)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._end = CLOSED
            self._core.close()

    def _lose(self) -> None:
        """Called in a fork: the core's threads, and its device, are those of its own process."""
        self._using = threading.RLock()  # a thread that is not here may hold the other
        self._closed, self._end = True, self._end or why_lost()

    @contextmanager
    def _stepping(self) -> Iterator[None]:
        with self._using:
            self._check_alive()
            try:
                yield
            except BaseException as error:  # an interrupted step cannot be resumed
                self._end = why_dead(Failed.of(error))
                if not isinstance(error, Exception):
                    raise
                raise EngineDeadError(self._end) from error

    def _check_alive(self) -> None:
        if self._end is not None:
            raise EngineDeadError(self._end)


CLOSED = "The engine was closed; make a new one."


def call_in_forks(method: Callable[[], None]) -> None:
    """Call this method of an object in each fork of this process, while the object lives."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        living = reference()
        if living is not None:
            living()

    os.register_at_fork(after_in_child=call)


def why_lost() -> str:
    """The message of an `EngineDeadError` in a fork, as the fork begins."""
    return (
        f"This engine belongs to process {os.getppid()} and cannot be used in a fork of that one; "
        "make the engine after the fork, or start processes with the method 'spawn'."
    )


def why_dead(failed: Failed) -> str:
    """The message of an `EngineDeadError`; the root cause is its last line."""
    return f"The engine stopped: its core failed.\n{failed.last_line}"


def dead_error(end: str, failed: Failed) -> EngineDeadError:
    """The error of a core that ran elsewhere, with its traceback as the cause."""
    error = EngineDeadError(end)
    error.__cause__ = CoreTraceback(failed.traceback)
    return error
