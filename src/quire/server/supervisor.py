"""Several HTTP processes at one socket, with one engine core: starts them, and keeps them going.

The supervisor owns the core and the socket, and serves nothing itself. Whatever happens is an
event, and the main thread handles events one by one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import itertools
import logging
import os
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import FrameType

from quire.child_process import how_ended, python_command
from quire.config import EngineConfig
from quire.engine.messages import Detach
from quire.engine.process import ProcessClient
from quire.engine.socket_folder import parent_of_sockets
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.metrics import multiprocess
from quire.server.args import ServerArgs
from quire.server.lifecycle import RESTART_DELAY_S, RestartLimit, as_exception, last_line
from quire.server.orders import (
    CANNOT_START,
    Boot,
    Down,
    Fail,
    Order,
    StartPhase,
    StopServing,
    Up,
    config_bytes,
    write_order,
)
from quire.server.peers import Place
from quire.server.served_core import ServedCore
from quire.server.signals import hand_over, stop_signals

logger = logging.getLogger(__name__)

_GRACE_S = 10.0  # beyond the shutdown timeout, until HTTP processes are killed
_RETRY_S = 10.0  # until another attempt to start an HTTP process
# Ctrl-C reaches all processes of a terminal at once, even while they still import.
_MAIN = "from quire.server.signals import ignore_stop_signals; ignore_stop_signals(); \
from quire.server.http_process import main; main()"


def supervise(
    args: ServerArgs, listener: socket.socket, make_config: Callable[[], EngineConfig]
) -> BaseException | None:
    """Serve until a signal; returns the error that the server died of, or None."""
    with (
        _common_folder() as folder,
        tempfile.TemporaryFile(dir=folder, buffering=0) as counts,
        multiprocess.shared_folder(folder),
    ):
        places = Place.make_all(folder, counts.fileno(), args.api_server_count)
        supervisor = _Supervisor(args, listener, make_config, places)
        if hand_over(
            stop_signals(),
            lambda number: signal.signal(number, supervisor.on_signal),
        ):
            supervisor.soon(supervisor.stop)
        return supervisor.run()


@contextlib.contextmanager
def _common_folder() -> Iterator[str]:
    """A new folder for sockets and metrics, removed at the end. Locked, since systemd-tmpfiles
    removes old files except those below a folder with a lock (tmpfiles.d(5), "Age")."""
    with tempfile.TemporaryDirectory(prefix="quire-http-", dir=parent_of_sockets()) as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # not every file system has locks
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield folder
        finally:
            os.close(descriptor)


class _Supervisor:
    def __init__(
        self,
        args: ServerArgs,
        listener: socket.socket,
        make_config: Callable[[], EngineConfig],
        places: list[Place],
    ) -> None:
        self._args = args
        self._places = places
        self._listener = listener
        self._make_config = make_config
        self._events: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._numbers = itertools.count()
        self._processes: list[_HTTPProcess] = []
        self._client: ProcessClient | None = None
        self._config: EngineConfig | None = None
        self._watch = StartWatch()
        self._engine_limit, self._process_limit = RestartLimit(), RestartLimit()
        self._has_been_up = False
        self._is_ending = False
        self._failure: BaseException | None = None

    def run(self) -> BaseException | None:
        for place in self._places:
            self._start_process(place)
        self._in_thread(self._load)
        try:
            while self._processes:
                self._handle(self._events.get())
        finally:
            self._watch.cancel()
            for process in self._processes:
                process.kill()
            if self._client is not None:
                self._client.close()
        return self._failure

    def _handle(self, event: Callable[[], None]) -> None:
        """Let an event happen. If that fails, the processes that are left go on serving."""
        try:
            event()
        except Exception as error:
            logger.exception("the HTTP processes that are left go on after an error")
            if not self._processes and not self._is_ending:
                self._failure = error

    def soon(self, event: Callable[[], None]) -> None:
        """Queue an event for the main thread; any thread or signal handler may call this."""
        self._events.put(event)

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        def told() -> None:
            logger.info("%s: shutting down", signal.Signals(number).name)
            self.stop()

        self.soon(told)

    def stop(self) -> None:
        """Tell every process to stop."""
        if not self._is_ending:
            self._watch.cancel()
            timer = threading.Timer(
                self._args.shutdown_timeout + _GRACE_S, lambda: self.soon(self._kill_processes)
            )
            timer.daemon = True
            timer.start()
        self._is_ending = True
        self._tell(StopServing())

    def _load(self) -> None:
        """In a thread of its own: start a core, then wait for its death."""
        self._watch = watch = StartWatch(
            lambda phase: self.soon(lambda: self._tell(StartPhase(phase)))
        )
        try:
            watch.enter("configuration")
            config = self._config or self._make_config()
            client = ServedCore(config, watch=watch)
        except BaseException as error:
            failed = as_exception(error)
            self.soon(lambda: self._on_death(failed))
            return
        self.soon(lambda: self._on_up(config, client))
        try:
            while True:
                client.receive()  # nothing: the core's requests belong to its other front ends
        except EngineDeadError as error:
            dead = error
            self.soon(lambda: self._on_death(dead))

    def _on_up(self, config: EngineConfig, client: ProcessClient) -> None:
        self._config, self._client = config, client
        self._has_been_up = True
        for process in self._processes:
            self._attach(process)

    def _on_death(self, cause: BaseException) -> None:
        client, self._client = self._client, None
        self._tell(Down(str(cause)))  # even while draining: running requests get no answer
        if client is not None:
            client.close()
        if self._is_ending:
            return
        may_restart = self._has_been_up and self._args.restart_engine
        if may_restart and self._engine_limit.take():
            logger.error("the engine died and is started again: %s", last_line(cause))
            self._in_thread(self._load, delay_s=RESTART_DELAY_S)
        else:
            self._fail(cause)

    def _on_process_end(self, process: _HTTPProcess, status: int) -> None:
        self._processes.remove(process)
        multiprocess.process_has_ended(process.pid)
        process.place.vacate()
        if self._client is not None and process.client is not None:
            with contextlib.suppress(EngineDeadError):
                self._client.send(Detach(process.client))
        if self._is_ending:
            return
        ended = f"HTTP process {process.pid} {how_ended(status)}"
        if status == CANNOT_START:
            self._give_up(ValueError("an HTTP process cannot start; see its error above"))
        elif self._process_limit.take():
            logger.error("%s; starting another one", ended)
            self._replace(process.place)
        else:
            cause = f"HTTP processes keep ending; the last one: {ended}"
            logger.error("%s; the server stops", cause)
            self._give_up(RuntimeError(cause))

    def _replace(self, place: Place) -> None:
        """Start a process where one has ended. As long as that fails, as without room for metrics,
        the processes that are left go on serving."""
        if self._is_ending:
            return
        try:
            self._start_process(place)
        except (OSError, ValueError) as error:
            if not self._processes:
                self._failure = error
                return
            logger.error(
                "no HTTP process can be started in place of one that ended: %s; the server goes on "
                "with %d, and tries again in %g s",
                error,
                len(self._processes),
                _RETRY_S,
            )
            self._in_thread(lambda: self.soon(lambda: self._replace(place)), delay_s=_RETRY_S)

    def _fail(self, cause: BaseException) -> None:
        self._failure, self._is_ending = cause, True
        self._tell(Fail(str(cause)))

    def _give_up(self, cause: Exception) -> None:
        """Stop the server, whose core still runs: requests of the processes that are left end as
        after a signal."""
        self._failure = cause
        self.stop()

    def _start_process(self, place: Place) -> None:
        # They share one engine: its throughput needs to be logged once.
        is_logger = not any(process.is_logger for process in self._processes)
        process = _HTTPProcess(
            self._args,
            self._listener,
            place,
            is_logger=is_logger,
            listens_at_once=self._client is None,
        )
        self._processes.append(process)
        self._in_thread(lambda: self._when_ended(process))
        if self._client is not None:
            self._attach(process)

    def _when_ended(self, process: _HTTPProcess) -> None:
        status = process.wait()
        self.soon(lambda: self._on_process_end(process, status))

    def _attach(self, process: _HTTPProcess) -> None:
        assert self._client is not None and self._config is not None
        process.client = str(next(self._numbers))
        folder = str(self._client.folder)
        process.tell(Up(folder, process.client, config_bytes(self._config)))

    def _tell(self, order: Order) -> None:
        for process in self._processes:
            process.tell(order)

    def _kill_processes(self) -> None:
        for process in self._processes:
            logger.warning(
                "HTTP process %d has not ended %g s after the server was told to stop; it is "
                "killed",
                process.pid,
                self._args.shutdown_timeout + _GRACE_S,
            )
            process.kill()

    def _in_thread(self, work: Callable[[], None], delay_s: float = 0.0) -> None:
        timer = threading.Timer(delay_s, work)
        timer.daemon = True
        timer.start()


class _HTTPProcess:
    """One HTTP process, from outside."""

    def __init__(
        self,
        args: ServerArgs,
        listener: socket.socket,
        place: Place,
        *,
        is_logger: bool,
        listens_at_once: bool,
    ) -> None:
        self.client: str | None = None  # its name at the core, once attached to one
        self.place = place
        self.is_logger = is_logger
        if not is_logger:
            args = dataclasses.replace(args, disable_log_stats=True)
        listener_fd = listener.fileno()
        self._child = subprocess.Popen(
            python_command(_MAIN),
            stdin=subprocess.PIPE,  # open as long as this process lives
            pass_fds=[listener_fd, place.counts_fd],
        )
        try:
            multiprocess.reserve_files(self.pid)
        except ValueError:
            self.kill()
            self.wait()
            raise
        log_level = logging.getLogger("quire").getEffectiveLevel()
        self.tell(Boot(args, place, listener_fd, log_level, listens_at_once))

    def tell(self, order: Order) -> None:
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is an event of its own
            write_order(self._child.stdin, order)

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait(self) -> int:
        return self._child.wait()

    def kill(self) -> None:
        self._child.kill()
