"""The engine core in a process of its own, over ZeroMQ sockets in a private folder.

The front end's side; `core_process.py` is the other one. Each process notices the other's death at
the closed end of a pipe: that also works for `kill -9`, and unlike a parent-death signal it does
not fire when merely the thread that started the child has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import weakref
from pathlib import Path

import zmq

from quire.child_process import how_ended, python_command
from quire.config import EngineConfig
from quire.engine.client import call_in_forks
from quire.engine.core_loop import BUILD_CORE
from quire.engine.link import CoreSockets, LinkClient
from quire.engine.messages import Command, Failed, Loading, Reply, Start, Started, Stop
from quire.engine.socket_folder import parent_of_sockets
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError

_STOP_TIMEOUT_S = 10.0
_MAIN = "from quire.engine.core_process import main; main()"


class ProcessClient(LinkClient):
    """Starts the process and waits until its core is ready; ``watch`` follows the start and can
    cancel it."""

    def __init__(
        self, config: EngineConfig, build: str = BUILD_CORE, watch: StartWatch | None = None
    ) -> None:
        watch = watch or StartWatch()
        self._process = _CoreProcess()
        self._close = weakref.finalize(self, self._process.close)
        call_in_forks(self._let_go)
        try:
            log_level = logging.getLogger("quire").getEffectiveLevel()
            self._process.send(Start(build, config, log_level))
            watch.enter("core process")
            watch.can_be_ended_by(self._process.kill)
            while isinstance(started := self._process.wait_answer(), Loading):
                watch.enter(started.phase)
        except BaseException:  # Ctrl-C while the model loads
            self._process.kill()
            self._close()
            raise
        watch.has_ended()
        if not isinstance(started, Started):
            self._close()
            raise _start_error(started, self._process)
        super().__init__(self._process, started.facts)

    def begin(self) -> None:
        """Nothing to do: the core starts by itself what it is sent."""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait up to ``timeout_s`` seconds (None: no limit) until `receive` would return at once;
        True if it would. Takes no message, so it may be interrupted anywhere. For the receiving
        thread."""
        with self._receiving:
            self._check_alive()
            return self._early is not None or self._process.is_ready(timeout_s)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def folder(self) -> Path:
        """Where its sockets are, for front ends that attach."""
        return self._process.folder

    def _free(self) -> None:
        self._close()

    def _let_go(self) -> None:
        """Called in a fork: leave the core to the process that started it."""
        if self._close.detach() is not None:  # else it is closed
            self._process.let_go()


class _CoreProcess:
    """The child, its sockets and its folder; a `Link` to it."""

    client = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="quire-", dir=parent_of_sockets()))
        self._sockets = CoreSockets(self.folder)
        self._alive_fd, child_fd = os.pipe()  # the child alone keeps the other end open
        self._child = subprocess.Popen(
            python_command(_MAIN, str(self.folder), str(child_fd)),
            stdin=subprocess.PIPE,  # open as long as this process lives
            pass_fds=[child_fd],
        )
        os.close(child_fd)

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, command: Command) -> None:
        self._sockets.send(command)

    def has_step(self) -> bool:
        return self._sockets.has_step()

    def is_ready(self, timeout_s: float | None) -> bool:
        """Whether `wait_step` would return within ``timeout_s`` seconds (None: no limit)."""
        return self._sockets.is_ready(self._sockets.steps, self._alive_fd, timeout_s)

    def wait_step(self) -> Reply | None:
        return self._sockets.wait(self._sockets.steps, self._alive_fd)

    def wait_answer(self) -> Reply | None:
        return self._sockets.wait(self._sockets.answers, self._alive_fd)

    def kill(self) -> None:
        self._child.kill()

    def stop(self) -> None:
        """End the child: by asking, then by force."""
        self._sockets.expect_nothing()
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
        self._sockets.close()
        os.close(self._alive_fd)
        shutil.rmtree(self.folder, ignore_errors=True)

    def let_go(self) -> None:
        """Give up a fork's ends of the pipes: while they are open the child misses its parent's
        death."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        os.close(self._alive_fd)

    def obituary(self) -> str:
        """The cause of death of a child that has not reported one."""
        code = self._child.wait()
        often = ", often because the system ran out of memory" if code == -signal.SIGKILL else ""
        cause = f"it {how_ended(code)}{often}"
        return f"The engine stopped: its core process {self.pid} ended.\nCause: {cause}"


def _start_error(reply: Reply | None, process: _CoreProcess) -> Exception:
    if isinstance(reply, Failed):
        return reply.to_exception()
    return EngineDeadError(process.obituary())
