"""The engine core in a process of its own, over three ZeroMQ sockets in a private folder.

The front end's side; `core_process.py` is the other one. Each process notices the other's death at
the closed end of a pipe: that also works for `kill -9`, and unlike a parent-death signal it does
not fire when merely the thread that started the child has ended.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import TypeVar

import zmq

from quire.config import EngineConfig
from quire.engine.client import CLOSED, dead_error, why_dead
from quire.engine.core_loop import BUILD_CORE
from quire.engine.messages import (
    AddRequest,
    Answer,
    Ask,
    Command,
    Deltas,
    Failed,
    Query,
    Reply,
    Start,
    Started,
    Stop,
    answer_value,
    decode_reply,
    encode,
)
from quire.errors import EngineDeadError
from quire.step_output import CompletionDelta

T = TypeVar("T")

_STOP_TIMEOUT_S = 10.0
_RECONNECT_MS = 5  # the child opens its socket as soon as Python has started there
_LAST_WORDS_MS = 500  # how long a message of a process that has ended may still be under way

# Started with "-c" and not by multiprocessing, so that a user's script needs no __main__ guard.
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); \
from quire.engine.core_process import main; main()"


class ProcessClient:
    """An `EngineClient` that may be used from several threads; one of them receives."""

    def __init__(self, config: EngineConfig, build: str = BUILD_CORE) -> None:
        self._process = _CoreProcess()
        self._close = weakref.finalize(self, self._process.close)
        self._end: str | None = None
        self._sending, self._receiving, self._asking = (threading.Lock() for _ in range(3))
        try:
            log_level = logging.getLogger("quire").getEffectiveLevel()
            self._process.send(Start(build, config, log_level))
            started = self._process.wait_answer()
        except BaseException:  # Ctrl-C while the model loads
            self._process.kill()
            self._close()
            raise
        if not isinstance(started, Started):
            self._close()
            raise _start_error(started, self._process)
        self.facts = started.facts

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> None:
        self._check_alive()
        if isinstance(command, AddRequest) and command.request.sampling.logits_processors:
            raise ValueError(
                "logits_processors are Python functions, which cannot reach an engine in another "
                "process; leave them out, or run the engine in this process "
                "(multiprocess_mode=False)"
            )
        with self._sending:
            self._check_alive()
            self._process.send(command)

    def receive(self) -> list[CompletionDelta]:
        with self._receiving:
            self._check_alive()
            reply = self._process.wait_step()
        if isinstance(reply, Deltas):
            return reply.deltas
        raise self._dead(reply)

    def ask(self, query: Query[T]) -> T:
        with self._asking:
            self.send(Ask(query.name))
            reply = self._process.wait_answer()
        if isinstance(reply, Answer):
            return answer_value(query, reply)
        raise self._dead(reply)

    def close(self) -> None:
        self._end = self._end or CLOSED
        with self._sending:
            self._process.stop()  # wakes whoever waits in `receive` or `ask`
        with self._receiving, self._asking:
            self._close()

    def _dead(self, reply: Reply | None) -> EngineDeadError:
        if isinstance(reply, Failed):
            self._end = self._end or why_dead(reply)
            return dead_error(self._end, reply)
        self._end = self._end or self._process.obituary()
        return EngineDeadError(self._end)

    def _check_alive(self) -> None:
        if self._end is not None:
            raise EngineDeadError(self._end)


class _CoreProcess:
    """The child, its sockets and its folder."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="quire-"))
        self._context = zmq.Context()
        # Who sends connects: then sending never waits, whether the other side is there or not.
        self._commands = self._context.socket(zmq.PUSH)
        self._commands.set_hwm(0)
        self._commands.reconnect_ivl = _RECONNECT_MS
        self._commands.connect(f"ipc://{self._folder / 'commands'}")
        self._steps = self._bind("steps")
        self._answers = self._bind("answers")
        self._alive_fd, child_fd = os.pipe()  # the child alone keeps the other end open
        self._child = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path), str(self._folder), str(child_fd)],
            stdin=subprocess.PIPE,  # open as long as this process lives
            pass_fds=[child_fd],
        )
        os.close(child_fd)
        self._last_words_ms = _LAST_WORDS_MS

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, command: Command) -> None:
        self._commands.send(encode(command))

    def wait_step(self) -> Reply | None:
        return self._wait(self._steps)

    def wait_answer(self) -> Reply | None:
        return self._wait(self._answers)

    def kill(self) -> None:
        self._child.kill()

    def stop(self) -> None:
        """End the child: by asking, then by force."""
        self._last_words_ms = 0
        if self._child.poll() is None:
            with contextlib.suppress(zmq.ZMQError):
                self.send(Stop())
            try:
                self._child.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    def close(self) -> None:
        self.stop()
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._context.destroy(linger=0)
        os.close(self._alive_fd)
        shutil.rmtree(self._folder, ignore_errors=True)

    def obituary(self) -> str:
        """How a child ended that said nothing itself."""
        code = self._child.wait()
        if code == -signal.SIGKILL:
            end = "it was killed by SIGKILL, which is often the system that ran out of memory"
        elif code < 0:
            end = f"it was killed by {signal.Signals(-code).name}"
        else:
            end = f"it exited with status {code}"
        return f"The engine stopped: its core process {self.pid} ended.\nCause: {end}"

    def _bind(self, name: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PULL)
        socket.set_hwm(0)
        socket.bind(f"ipc://{self._folder / name}")
        return socket

    def _wait(self, socket: zmq.Socket[bytes]) -> Reply | None:
        """The next message, or None when the child has ended and said all it had to say."""
        poller = zmq.Poller()
        poller.register(socket, zmq.POLLIN)
        poller.register(self._alive_fd, zmq.POLLIN)
        ready = dict(poller.poll())
        if socket not in ready and not socket.poll(self._last_words_ms):
            return None
        return decode_reply(socket.recv())


def _start_error(reply: Reply | None, process: _CoreProcess) -> Exception:
    if isinstance(reply, Failed):
        return reply.to_exception()
    return EngineDeadError(process.obituary())
