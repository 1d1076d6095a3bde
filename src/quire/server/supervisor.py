"""Several HTTP processes at one socket, with one engine core: starts them, and keeps them going.

The supervisor owns the core and the socket, and serves nothing itself. Whatever happens is an
event, and events are worked off one by one in the main thread.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from queue import SimpleQueue

from quire.config import EngineConfig
from quire.engine.messages import Detach
from quire.engine.process import ProcessClient
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.metrics import multiprocess
from quire.server.args import ServerArgs
from quire.server.lifecycle import RestartLimit, as_exception, last_line
from quire.server.orders import (
    Boot,
    Down,
    Fail,
    Order,
    Phase,
    StopServing,
    Up,
    config_bytes,
    write_order,
)
from quire.server.peers import Counts, Place

logger = logging.getLogger(__name__)

_RESTART_DELAY_S = 1.0
_GRACE_S = 10.0  # beyond the shutdown timeout, until HTTP processes are killed
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); \
from quire.server.worker import main; main()"


def supervise(
    args: ServerArgs, listener: socket.socket, make_config: Callable[[], EngineConfig]
) -> BaseException | None:
    """Serve until a signal; the result is what the server has died of, if it has."""
    with multiprocess.shared_folder(), tempfile.TemporaryDirectory(prefix="quire-http-") as folder:
        places = Place.make_all(folder, args.api_server_count)
        supervisor = _Supervisor(args, listener, make_config, places)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: supervisor.soon(supervisor.stop))
        return supervisor.run()


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
        self._workers: list[_Worker] = []
        self._client: ProcessClient | None = None
        self._config: EngineConfig | None = None
        self._watch = StartWatch()
        self._engine_limit, self._worker_limit = RestartLimit(), RestartLimit()
        self._has_been_up = False
        self._is_ending = False
        self._failure: BaseException | None = None

    def run(self) -> BaseException | None:
        for place in self._places:
            self._start_worker(place)
        self._in_thread(self._load)
        try:
            while self._workers:
                self._events.get()()
        finally:
            self._watch.cancel()
            for worker in self._workers:
                worker.kill()
            if self._client is not None:
                self._client.close()
        return self._failure

    def soon(self, event: Callable[[], None]) -> None:
        """From any thread or signal handler: do this in the main thread."""
        self._events.put(event)

    def stop(self) -> None:
        """A signal: drain; the second time, end at once."""
        if not self._is_ending:
            self._watch.cancel()
            timer = threading.Timer(
                self._args.shutdown_timeout + _GRACE_S, lambda: self.soon(self._kill_workers)
            )
            timer.daemon = True
            timer.start()
        self._is_ending = True
        self._tell(StopServing())

    def _load(self) -> None:
        """In a thread of its own: start a core, then wait for its death."""
        self._watch = watch = StartWatch(lambda phase: self.soon(lambda: self._tell(Phase(phase))))
        try:
            watch.enter("configuration")
            config = self._config or self._make_config()
            client = ProcessClient(config, watch=watch)
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
        for worker in self._workers:
            self._attach(worker)

    def _on_death(self, cause: BaseException) -> None:
        client, self._client = self._client, None
        if self._is_ending:
            return
        self._tell(Down(str(cause)))
        if client is not None:
            client.close()
        may_restart = self._has_been_up and self._args.restart_engine
        if may_restart and self._engine_limit.take():
            logger.error("the engine died and is started again: %s", last_line(cause))
            self._in_thread(self._load, delay_s=_RESTART_DELAY_S)
        else:
            self._fail(cause)

    def _on_worker_end(self, worker: _Worker, status: int) -> None:
        self._workers.remove(worker)
        multiprocess.process_has_ended(worker.pid)
        Counts(worker.place).set(0)
        if self._client is not None and worker.client is not None:
            with contextlib.suppress(EngineDeadError):
                self._client.send(Detach(worker.client))
        if self._is_ending:
            return
        if self._worker_limit.take():
            logger.error("an HTTP process ended with status %d; another one is started", status)
            self._start_worker(worker.place)
        else:
            self._fail(RuntimeError(f"HTTP processes end again and again, with status {status}"))

    def _fail(self, cause: BaseException) -> None:
        self._failure, self._is_ending = cause, True
        self._tell(Fail(str(cause)))

    def _start_worker(self, place: Place) -> None:
        # They share one engine: its throughput needs to be logged once.
        is_logger = not any(worker.is_logger for worker in self._workers)
        worker = _Worker(self._args, self._listener, place, is_logger=is_logger)
        self._workers.append(worker)
        self._in_thread(lambda: self._when_ended(worker))
        if self._client is not None:
            self._attach(worker)

    def _when_ended(self, worker: _Worker) -> None:
        status = worker.wait()
        self.soon(lambda: self._on_worker_end(worker, status))

    def _attach(self, worker: _Worker) -> None:
        assert self._client is not None and self._config is not None
        worker.client = str(next(self._numbers))
        folder = str(self._client.folder)
        worker.tell(Up(folder, worker.client, config_bytes(self._config)))

    def _tell(self, order: Order) -> None:
        for worker in self._workers:
            worker.tell(order)

    def _kill_workers(self) -> None:
        for worker in self._workers:
            worker.kill()

    def _in_thread(self, work: Callable[[], None], delay_s: float = 0.0) -> None:
        timer = threading.Timer(delay_s, work)
        timer.daemon = True
        timer.start()


class _Worker:
    """One HTTP process, from outside."""

    def __init__(
        self, args: ServerArgs, listener: socket.socket, place: Place, *, is_logger: bool
    ) -> None:
        self.client: str | None = None  # its name at the core, once it was told of one
        self.place = place
        self.is_logger = is_logger
        if not is_logger:
            args = dataclasses.replace(args, disable_log_stats=True)
        listener_fd = listener.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,  # open as long as this process lives
            pass_fds=[listener_fd],
        )
        log_level = logging.getLogger("quire").getEffectiveLevel()
        self.tell(Boot(args, place, listener_fd, log_level))

    def tell(self, order: Order) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # its end is an event of its own
            write_order(self._process.stdin, order)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait(self) -> int:
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
