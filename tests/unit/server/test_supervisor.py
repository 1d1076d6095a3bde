"""What the supervisor tells its HTTP processes, and when it goes on or gives up.

Processes and cores are fakes: events happen when a test says so.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.server import supervisor
from quire.server.args import ServerArgs
from quire.server.orders import CANNOT_START, Down, Fail, Order, StopServing, Up
from quire.server.peers import Counts, Place
from tests.fakes.configs import fake_config

DEADLINE_S = 20


class FakeProcess:
    """An HTTP process that ends when it is told to, or when a test says with which status."""

    def __init__(
        self,
        args: ServerArgs,
        listener: object,
        place: Place,
        *,
        is_logger: bool,
        listens_at_once: bool,
    ) -> None:
        self.listens_at_once = listens_at_once
        self.client: str | None = None
        self.place = place
        self.is_logger = is_logger
        self.pid = 2**30 + place.index
        self.orders: list[Order] = []
        self._status: int | None = None
        self._ended = threading.Event()
        World.processes.append(self)

    def tell(self, order: Order) -> None:
        self.orders.append(order)
        if isinstance(order, (StopServing, Fail)):
            self.end(0)

    def wait(self) -> int:
        assert self._ended.wait(DEADLINE_S)
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        self.end(-9)

    def end(self, status: int) -> None:
        if self._status is None:
            self._status = status
            self._ended.set()


class FakeCore:
    """A core that dies when a test says so."""

    def __init__(self, config: object, *, watch: StartWatch) -> None:
        self.folder = Path("/nowhere")
        self.sent: list[object] = []
        self.is_closed = False
        self._died = threading.Event()
        World.cores.append(self)

    def receive(self) -> None:
        assert self._died.wait(DEADLINE_S)
        raise EngineDeadError("The engine died.\nCause: on fire")

    def send(self, command: object) -> None:
        self.sent.append(command)

    def close(self) -> None:
        self.is_closed = True

    def die(self) -> None:
        self._died.set()


class World:
    """What has been started, in order."""

    processes: list[FakeProcess]
    cores: list[FakeCore]


class Run:
    """A supervisor of two processes at work in a thread."""

    def __init__(self, folder: Path, **args: Any) -> None:
        self._counts_fd = os.open(folder / "counts", os.O_RDWR | os.O_CREAT)
        self.places = Place.make_all(str(folder), self._counts_fd, 2)
        server_args = ServerArgs(api_server_count=2, **args)
        with socket.socket() as listener:
            self.supervisor = supervisor._Supervisor(
                server_args, listener, fake_config, self.places
            )
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.failure = self.supervisor.run()

    def until(self, condition: Callable[[], bool]) -> None:
        """Looked at between two events, as often as there are any."""
        holds = threading.Event()

        def look() -> None:
            if condition():
                holds.set()
            else:
                timer = threading.Timer(0.001, lambda: self.supervisor.soon(look))
                timer.daemon = True
                timer.start()

        self.supervisor.soon(look)
        assert holds.wait(DEADLINE_S)

    def end(self) -> BaseException | None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()
        return self.failure

    def close(self) -> None:
        self.supervisor.soon(self.supervisor.stop)
        self.end()
        os.close(self._counts_fd)


def test_sockets_have_room_in_a_deep_folder_of_temporary_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    monkeypatch.setattr(supervisor, "hand_over", lambda signals, set_handler: False)
    folders: list[Path] = []

    def run(self: supervisor._Supervisor) -> None:
        folders.extend(Path(place.folder) for place in self._places)
        with socket.socket(socket.AF_UNIX) as peer:
            peer.bind(str(folders[0] / "peer-0"))

    monkeypatch.setattr(supervisor._Supervisor, "run", run)
    with socket.socket() as listener:
        supervisor.supervise(ServerArgs(api_server_count=2), listener, fake_config)
    assert len(folders) == 2 and not folders[0].exists()


def test_the_common_folder_is_locked_against_cleaners() -> None:
    with supervisor._common_folder() as folder:
        descriptor = os.open(folder, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
    assert not Path(folder).exists()


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Run]]:
    World.processes, World.cores = [], []
    monkeypatch.setattr(supervisor, "_HTTPProcess", FakeProcess)
    monkeypatch.setattr(supervisor, "ServedCore", FakeCore)
    monkeypatch.setattr(supervisor, "RESTART_DELAY_S", 0.0)
    monkeypatch.setattr(supervisor.multiprocess, "process_has_ended", lambda pid: None)
    runs: list[Run] = []

    def make(**args: Any) -> Run:
        runs.append(Run(tmp_path, **args))
        return runs[-1]

    yield make
    for run in runs:
        run.close()
    for core in World.cores:
        core.die()


def orders_of(process: FakeProcess, kind: type[Order]) -> list[Any]:
    return [order for order in process.orders if isinstance(order, cast(Any, kind))]


def all_are_up(times: int = 1) -> bool:
    return len(World.processes) >= 2 and all(
        len(orders_of(one, Up)) == times for one in World.processes
    )


def test_each_process_has_a_name_of_its_own_at_the_core(start: Callable[..., Run]) -> None:
    run = start()
    run.until(all_are_up)
    names = [orders_of(one, Up)[0].client for one in World.processes]
    assert len(set(names)) == 2
    assert [one.is_logger for one in World.processes] == [True, False]


def test_a_process_that_ends_is_replaced_at_its_place(start: Callable[..., Run]) -> None:
    run = start()
    run.until(all_are_up)
    first = World.processes[0]
    Counts(first.place).set(7)
    first.end(1)
    run.until(lambda: len(World.processes) == 3 and bool(orders_of(World.processes[2], Up)))
    new = World.processes[2]
    assert (new.place, new.is_logger) == (first.place, True)
    assert first.listens_at_once and not new.listens_at_once  # the other one can answer
    assert Counts(first.place).total == 0
    (detached,) = World.cores[0].sent
    assert cast(Any, detached).client == first.client != new.client


def test_processes_that_end_again_and_again_are_the_end(start: Callable[..., Run]) -> None:
    run = start()
    run.until(all_are_up)
    for count in range(3, 6):
        World.processes[-1].end(3)
        run.until(lambda count=count: len(World.processes) == count)  # type: ignore[misc]
    World.processes[-1].end(3)
    last = World.processes[-1].pid
    assert f"keep ending; the last one: HTTP process {last} exited with status 3" in str(run.end())
    assert World.cores[0].is_closed
    assert orders_of(World.processes[0], StopServing) and not orders_of(World.processes[0], Fail)


def test_a_signal_that_ended_a_process_is_named(
    start: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    run.until(all_are_up)
    first = World.processes[0]
    first.end(-signal.SIGBUS)
    run.until(lambda: len(World.processes) == 3)
    assert f"HTTP process {first.pid} was killed by SIGBUS; starting another one" in caplog.text
    World.processes[2].end(-(signal.SIGRTMIN + 1))  # it has no name
    run.until(lambda: len(World.processes) == 4)
    assert f"was killed by signal {signal.SIGRTMIN + 1}; starting another one" in caplog.text


def test_the_others_go_on_when_a_process_cannot_be_replaced(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    run.until(all_are_up)
    first, second = World.processes
    monkeypatch.setattr(supervisor, "_HTTPProcess", no_process)
    first.end(1)
    run.until(lambda: "goes on with 1, and tries" in caplog.text)
    assert run.supervisor._processes == [second] and "Traceback" not in caplog.text
    assert not World.cores[0].is_closed and second.orders[-1:] != [Fail]
    second.end(1)
    assert "no room for a process" in str(run.end())


def no_process(*args: object, **kwargs: object) -> None:
    raise ValueError("no room for a process")


def test_a_place_is_filled_once_there_is_room_again(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_RETRY_S", 0.0)
    run = start()
    run.until(all_are_up)
    first = World.processes[0]
    monkeypatch.setattr(supervisor, "_HTTPProcess", no_process)
    first.end(1)
    # More often than processes may end.
    run.until(lambda: caplog.text.count("no room for a process") > 10)
    monkeypatch.setattr(supervisor, "_HTTPProcess", FakeProcess)
    run.until(lambda: len(World.processes) == 3 and bool(orders_of(World.processes[2], Up)))
    assert World.processes[2].place is first.place


def test_no_place_is_filled_while_the_server_ends(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = start()
    run.until(all_are_up)
    monkeypatch.setattr(supervisor, "_HTTPProcess", no_process)
    World.processes[0].end(1)
    run.until(lambda: "no room for a process" in caplog.text)
    monkeypatch.setattr(supervisor, "_HTTPProcess", FakeProcess)
    run.supervisor.soon(run.supervisor.stop)
    run.supervisor.soon(lambda: run.supervisor._replace(World.processes[0].place))
    assert run.end() is None and len(World.processes) == 2


def test_a_process_that_does_not_stop_is_killed_and_logged(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "_GRACE_S", 0.0)
    run = start(shutdown_timeout=0.0)
    run.until(all_are_up)
    stuck = World.processes[1]
    monkeypatch.setattr(stuck, "tell", lambda order: None)
    run.supervisor.soon(run.supervisor.stop)
    assert run.end() is None
    assert f"HTTP process {stuck.pid} has not ended 0 s after" in caplog.text


def test_a_process_that_cannot_start_is_the_end_at_once(start: Callable[..., Run]) -> None:
    run = start()
    run.until(lambda: len(World.processes) == 2)
    World.processes[0].end(CANNOT_START)
    assert "an HTTP process cannot start" in str(run.end())
    assert len(World.processes) == 2


def test_a_core_that_dies_is_the_end_unless_it_may_be_restarted(start: Callable[..., Run]) -> None:
    run = start()
    run.until(all_are_up)
    World.cores[0].die()
    assert "on fire" in str(run.end())
    for process in World.processes:
        assert [type(order) for order in process.orders[-2:]] == [Down, Fail]


def test_a_core_that_dies_is_replaced_by_flag(start: Callable[..., Run]) -> None:
    run = start(restart_engine=True)
    run.until(all_are_up)
    World.cores[0].die()
    run.until(lambda: all_are_up(times=2))
    assert World.cores[0].is_closed and len(World.cores) == 2
    assert all(len(orders_of(one, Down)) == 1 for one in World.processes)


def test_a_death_while_the_server_ends_is_no_failure(start: Callable[..., Run]) -> None:
    run = start(restart_engine=True)
    run.until(all_are_up)
    run.supervisor.soon(World.cores[0].die)
    run.supervisor.soon(run.supervisor.stop)
    assert run.end() is None
    assert len(World.cores) == 1


def test_a_signal_between_two_cores_ends_the_server(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(restart_engine=True)
    run.until(all_are_up)
    monkeypatch.setattr(supervisor, "RESTART_DELAY_S", 3600.0)
    World.cores[0].die()
    run.until(lambda: all(orders_of(one, Down) for one in World.processes))
    run.supervisor.soon(run.supervisor.stop)
    assert run.end() is None
    assert len(World.cores) == 1


def test_a_core_that_cannot_start_is_the_end(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(config: object, *, watch: StartWatch) -> None:
        raise SystemExit("no licence")

    monkeypatch.setattr(supervisor, "ServedCore", fail)
    run = start(restart_engine=True)  # which is for one that has been up
    assert "no licence" in str(run.end())
