"""The process of an engine core: its end of the sockets of `process.py`, and its `main`.

Dies with the front end, whose life is the open end of this process's standard input.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import zmq

from quire import log
from quire.engine.core_loop import run_core
from quire.engine.messages import (
    Answer,
    Command,
    Deltas,
    Failed,
    Start,
    Started,
    decode_command,
    encode,
)

_LINGER_MS = 5000  # for the last words to leave this process


def main() -> None:
    """Arguments: the folder of the sockets, and a descriptor to keep open until the end."""
    folder, alive_fd = Path(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(alive_fd, False)
    # Ctrl-C reaches every process of the terminal; the front end decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    channel = _SocketChannel(folder)
    start = channel.take_start()
    logging.getLogger("quire").setLevel(start.log_level)
    log.setup()
    failed = run_core(start.build, start.config, channel)
    channel.close()
    sys.exit(0 if failed is None else 1)  # the front end has the traceback and prints it


def _end_with_parent(folder: Path) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)  # the front end cannot any more
    os._exit(1)


class _SocketChannel:
    def __init__(self, folder: Path) -> None:
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

    def take(self, *, wait: bool) -> list[Command]:
        commands = [decode_command(self._commands.recv())] if wait else []
        while self._commands.poll(0):
            commands.append(decode_command(self._commands.recv()))
        return commands

    def put_step(self, reply: Deltas | Failed) -> None:
        self._steps.send(encode(reply))

    def put_answer(self, reply: Started | Answer | Failed) -> None:
        self._answers.send(encode(reply))

    def close(self) -> None:
        self._context.destroy(linger=_LINGER_MS)

    def _connect(self, path: Path) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.PUSH)
        socket.set_hwm(0)
        socket.connect(f"ipc://{path}")
        return socket
