"""The front end's side of a core that steps by itself: locks, sockets, and noticing its death.

`process.py` and `thread.py` start such a core, `attached.py` joins one that another process has
started.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from pathlib import Path
from typing import Protocol, TypeVar

import zmq

from quire.engine.client import (
    CLOSED,
    MOST_STEPS_AT_ONCE,
    call_in_forks,
    dead_error,
    why_dead,
    why_lost,
)
from quire.engine.messages import (
    AddRequest,
    Answer,
    Ask,
    Command,
    Deltas,
    Failed,
    Query,
    Reply,
    answer_value,
    decode_reply,
    encode,
)
from quire.errors import EngineDeadError
from quire.step_output import CompletionDelta, EngineFacts

T = TypeVar("T")

_RECONNECT_MS = 5  # the other side opens its socket as soon as Python has started there
_LAST_WORDS_MS = 500  # how long a message of a process that has ended may still be under way


class Link(Protocol):
    """A connection to a core in another thread or process."""

    client: str  # the name of this front end; "" for the one that started the core

    def send(self, command: Command) -> None: ...

    def has_step(self) -> bool:
        """Whether `wait_step` has a message already."""
        ...

    def wait_step(self) -> Reply | None:
        """The next message about steps; None when the core has ended and said all it had to."""
        ...

    def wait_answer(self) -> Reply | None: ...

    def stop(self) -> None:
        """Wake all waiting threads; further messages are not needed."""
        ...

    def close(self) -> None:
        """Free everything; nobody may use the link now."""
        ...

    def obituary(self) -> str:
        """The cause of death of a core that has not reported one."""
        ...


class LinkClient:
    """An `EngineClient` that may be used from several threads; one of them receives."""

    def __init__(self, link: Link, facts: EngineFacts) -> None:
        self.facts = facts
        self._link = link
        self._end: str | None = None
        self._is_freed = False
        self._early: Reply | None = None  # a message after the deltas, for the next `receive`
        self._serials = itertools.count()  # of questions
        self._make_locks()
        call_in_forks(self._lose)

    def send(self, command: Command) -> None:
        self._check_alive()
        with self._sending:
            self._check_alive()
            self._link.send(command)

    def receive(self) -> list[CompletionDelta]:
        with self._receiving:
            self._check_alive()
            reply = self._wait_steps()
        if isinstance(reply, Deltas):
            return reply.deltas
        raise self._dead(reply)

    def ask(self, query: Query[T]) -> T:
        with self._asking:
            serial = next(self._serials)
            self.send(Ask(query.name, self._link.client, serial))
            reply = self._link.wait_answer()
            while isinstance(reply, Answer) and reply.serial != serial:  # who asked has left
                reply = self._link.wait_answer()
        if isinstance(reply, Answer):
            return answer_value(query, reply)
        raise self._dead(reply)

    def close(self) -> None:
        if self._is_freed:
            return
        self._end = self._end or CLOSED
        with self._sending:
            self._link.stop()  # wakes whoever waits in `receive` or `ask`
        with self._receiving, self._asking:
            if not self._is_freed:
                self._is_freed = True
                self._free()

    def _free(self) -> None:
        self._link.close()

    def _lose(self) -> None:
        """Called in a fork, which shares the sockets and has none of the threads."""
        self._make_locks()  # a thread that is not here may hold the others
        self._is_freed, self._end = True, self._end or why_lost()

    def _make_locks(self) -> None:
        self._sending, self._receiving, self._asking = (threading.Lock() for _ in range(3))

    def _wait_steps(self) -> Reply | None:
        """The next message about steps; the deltas of all steps that have arrived are joined."""
        reply, self._early = self._early or self._link.wait_step(), None
        for _ in range(MOST_STEPS_AT_ONCE):
            if not isinstance(reply, Deltas) or not self._link.has_step():
                break
            more = self._link.wait_step()
            if not isinstance(more, Deltas):
                self._early = more
                break
            reply.deltas.extend(more.deltas)
        return reply

    def _dead(self, reply: Reply | None) -> EngineDeadError:
        if isinstance(reply, Failed):
            self._end = self._end or why_dead(reply)
            return dead_error(self._end, reply)
        self._end = self._end or self._link.obituary()
        return EngineDeadError(self._end)

    def _check_alive(self) -> None:
        if self._end is not None:
            raise EngineDeadError(self._end)


class CoreSockets:
    """The sockets of one front end in the core's folder."""

    def __init__(self, folder: Path, client: str = "") -> None:
        self._folder = folder
        self._context = zmq.Context()
        # The sender connects, so that sending never blocks, whether the other side is up or not.
        self._commands = self._context.socket(zmq.PUSH)
        self._commands.set_hwm(0)
        self._commands.reconnect_ivl = _RECONNECT_MS
        self._commands.connect(f"ipc://{folder / 'commands'}")
        suffix = f"-{client}" if client else ""
        self.steps = self._bind(f"steps{suffix}")
        self.answers = self._bind(f"answers{suffix}")
        self._last_words_ms = _LAST_WORDS_MS

    def send(self, command: Command) -> None:
        if isinstance(command, AddRequest) and command.request.sampling.logits_processors:
            raise ValueError(
                "logits_processors are Python functions, which cannot reach an engine in another "
                "process; name what can be imported there, as 'package.module.function', or run "
                "the engine in this process (multiprocess_mode=False)"
            )
        if self._commands.closed:  # as the program ends
            raise EngineDeadError(CLOSED)
        self._commands.send(encode(command))

    def wait(self, socket: zmq.Socket[bytes], alive_fd: int) -> Reply | None:
        """The next message, or None when the other end of ``alive_fd`` is closed and nothing more
        comes."""
        ready = _poll(socket, alive_fd, None)
        if socket not in ready and not socket.poll(self._last_words_ms):
            return None
        return decode_reply(socket.recv())

    def is_ready(self, socket: zmq.Socket[bytes], alive_fd: int, timeout_s: float | None) -> bool:
        """Whether `wait` would return within ``timeout_s`` seconds (None: no limit); takes no
        message."""
        return bool(_poll(socket, alive_fd, timeout_s))

    def has_step(self) -> bool:
        return bool(self.steps.poll(0))

    def expect_nothing(self) -> None:
        """Do not wait for the last messages of a process that has ended."""
        self._last_words_ms = 0

    def close(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self._context.destroy(linger=0)

    def _bind(self, name: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PULL)
        socket.set_hwm(0)
        socket.bind(f"ipc://{self._folder / name}")
        return socket


def _poll(socket: zmq.Socket[bytes], alive_fd: int, timeout_s: float | None) -> dict[object, int]:
    """Which of the two can be read within ``timeout_s`` seconds (None: no limit)."""
    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(alive_fd, zmq.POLLIN)
    return dict(poller.poll(None if timeout_s is None else int(1000 * timeout_s)))
