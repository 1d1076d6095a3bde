"""Starts a server in a process of its own, waits until it is ready, and ends it with the block."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_TIMEOUT_S = 300
STOP_TIMEOUT_S = 60
_LISTENING = re.compile(r"listening at (http://\S+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class RunningServer:
    """A server that is ready for requests."""

    url: str
    pid: int  # of its HTTP process


@contextmanager
def running_server(program: Sequence[str], log: Path) -> Iterator[RunningServer]:
    """``program``: arguments for Python, such as ``-m quire serve``; ``log`` gets its output. It
    must print its address as `quire serve` does, and "ready:"."""
    command = [sys.executable, *program]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as file,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        timer = threading.Timer(START_TIMEOUT_S, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            url = None
            for line in process.stdout:
                file.write(line)
                found = _LISTENING.search(line)
                url = found.group(1) if found else url
                if url is not None and "ready:" in line:
                    break
            else:
                file.flush()
                end = log.read_text()[-3000:]
                raise SystemExit(f"the server did not start: {shlex.join(command)}\n{end}")
            timer.cancel()
            threading.Thread(target=file.writelines, args=(process.stdout,), daemon=True).start()
            yield RunningServer(url=url, pid=process.pid)
        finally:
            timer.cancel()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()  # or leaving the block would wait for ever
