"""The process of an engine core: its end of the sockets of `process.py`, and its `main`.

Exits when the front end dies, which holds the other end of this process's standard input.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections import defaultdict
from pathlib import Path

import zmq

from quire import log
from quire.engine.core_loop import run_core
from quire.engine.messages import (
    Abort,
    AddRequest,
    Answer,
    Attach,
    Command,
    Deltas,
    Detach,
    Failed,
    Finish,
    Loading,
    Start,
    Started,
    client_of,
    decode_command,
    encode,
)
from quire.heap import keep_all_that_exists
from quire.kernels.preload import preload_kernels
from quire.standard_streams import open_standard_streams
from quire.step_output import CompletionDelta

_LINGER_MS = 5000  # for the last messages to leave this process


def main() -> None:
    """Arguments: the folder of the sockets, and a descriptor to keep open until the end."""
    open_standard_streams()
    folder, alive_fd = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(alive_fd, False)
    # Ctrl-C reaches every process of the terminal, and what ends a service may signal all of its
    # processes: the front end decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    channel = _SocketChannel(folder)
    start = channel.take_start()
    logging.getLogger("quire").setLevel(start.log_level)
    log.setup()
    preload_kernels(start.config.device.device)
    failed = run_core(start.build, start.config, channel, on_ready=keep_all_that_exists)
    channel.close()
    sys.exit(0 if failed is None else 1)  # the front end has the traceback and prints it


def _end_with_parent(folder: Path) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)  # the front end is gone and cannot do it
    os._exit(1)


class _AttachedFront:
    """The core's connection to one of several front ends."""

    def __init__(self, steps: zmq.Socket[bytes], answers: zmq.Socket[bytes]) -> None:
        self.steps, self.answers = steps, answers
        self._unfinished: dict[str, set[int]] = {}  # completions, by request

    @property
    def request_ids(self) -> list[str]:
        return list(self._unfinished)

    def add(self, command: AddRequest) -> None:
        request = command.request
        # A beam search ends as a whole, with as many answers as it found, at least one.
        count = 1 if request.beam is not None else request.n
        self._unfinished[request.request_id] = set(range(count))

    def end_completion(self, request_id: str, index: int) -> None:
        """Note the end of a completion; harmless if core and front end both report it."""
        left = self._unfinished.get(request_id, set())
        left.discard(index)
        if not left:
            self._unfinished.pop(request_id, None)

    def forget(self, request_ids: list[str]) -> None:
        for request_id in request_ids:
            self._unfinished.pop(request_id, None)

    def close(self) -> None:
        self.steps.close(linger=0)
        self.answers.close(linger=0)


class _SocketChannel:
    """The connection to the process that started this one, or to the front ends that attach.

    With attached front ends the starting process has no requests of its own, and every request id
    begins with its front end's name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fronts: dict[str, _AttachedFront] = {}
        self._has_fronts = False  # has had some since the start
        self._started: Started | None = None
        self._context = zmq.Context()
        self._commands = self._context.socket(zmq.PULL)
        self._commands.set_hwm(0)
        self._commands.bind(f"ipc://{folder / 'commands'}")
        self._steps = self._connect(folder / "steps")
        self._answers = self._connect(folder / "answers")

    def take_start(self) -> Start:
        first = decode_command(self._commands.recv())
        assert isinstance(first, Start), first
        return first

    def take(self, *, timeout: float | None) -> list[Command]:
        commands = []
        while self._commands.poll(None if timeout is None else int(1000 * timeout)):
            commands.append(self._next())
            timeout = 0
        return [command for command in commands if command is not None]

    def put_step(self, reply: Deltas | Failed) -> None:
        if not self._has_fronts:
            self._steps.send(encode(reply))
        elif isinstance(reply, Deltas):
            self._put_each(reply.deltas)
        else:
            for socket in [self._steps, *(front.steps for front in self._fronts.values())]:
                socket.send(encode(reply))

    def put_answer(self, reply: Loading | Started | Answer | Failed, client: str = "") -> None:
        if isinstance(reply, Started):
            self._started = reply
        if client and client in self._fronts:
            self._fronts[client].answers.send(encode(reply))
        elif not client:
            self._answers.send(encode(reply))
        if isinstance(reply, Failed):
            for front in self._fronts.values():
                front.answers.send(encode(reply))

    def _next(self) -> Command | None:
        """The next command, unless it is for the channel itself."""
        command = decode_command(self._commands.recv())
        if isinstance(command, Attach):
            self._attach(command.client)
            return None
        if isinstance(command, Detach):
            return self._detach(command.client)
        if isinstance(command, AddRequest) and self._is_orphan(command.request.request_id):
            return None
        if self._has_fronts:
            self._note(command)
        return command

    def _attach(self, client: str) -> None:
        front = _AttachedFront(
            self._connect(self._folder / f"steps-{client}"),
            self._connect(self._folder / f"answers-{client}"),
        )
        self._fronts[client] = front
        self._has_fronts = True
        assert self._started is not None, "attached before the start"
        front.answers.send(encode(self._started))

    def _detach(self, client: str) -> Abort | None:
        front = self._fronts.pop(client, None)
        if front is None:
            return None
        front.close()
        return Abort(front.request_ids)

    def _note(self, command: Command) -> None:
        """Keep count of what each front end has running, so that it can be ended with it."""
        if isinstance(command, AddRequest):
            self._fronts[client_of(command.request.request_id)].add(command)
        elif isinstance(command, Finish) and not self._is_orphan(command.request_id):
            self._fronts[client_of(command.request_id)].end_completion(
                command.request_id, command.index
            )
        elif isinstance(command, Abort) and not command.keeps_tokens:  # else their ends are told
            for front in self._fronts.values():
                front.forget(command.request_ids)

    def _put_each(self, deltas: list[CompletionDelta]) -> None:
        by_client: dict[str, list[CompletionDelta]] = defaultdict(list)
        for delta in deltas:
            by_client[client_of(delta.request_id)].append(delta)
        for client, own in by_client.items():
            front = self._fronts.get(client)
            if front is None:
                continue  # it has detached, and its requests end with the next command
            for delta in own:
                if delta.finish_reason is not None:
                    front.end_completion(delta.request_id, delta.index)
            front.steps.send(encode(Deltas(own)))

    def _is_orphan(self, request_id: str) -> bool:
        """Whether the request's front end has detached: its last messages may arrive after that."""
        return self._has_fronts and client_of(request_id) not in self._fronts

    def close(self) -> None:
        self._context.destroy(linger=_LINGER_MS)

    def _connect(self, path: Path) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.set_hwm(0)
        socket.connect(f"ipc://{path}")
        return socket
