"""`quire serve` and what ends it: the terminal, the system, and a core that does not answer."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import pytest

from quire.server.served_core import PATIENCE_S
from tests.e2e.server.test_processes import ENGINE, LONG, SHORT, TIMEOUT_S, Stream, serving

pytestmark = pytest.mark.usefixtures("hears_hangup")
_ANY = pytest.mark.parametrize("flags", [(), ("--api-server-count", "2")])
_SECONDS_TO_END = 4  # for everything else, on a machine that is busy


@_ANY
def test_the_end_of_the_terminal_drains(flags: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="q") as folder:
        with serving(*flags, TMPDIR=folder) as served:
            served.until(lambda: served.count("ready: ") == (2 if flags else 1))
            stream = Stream(served)
            for child in served.children(""):  # all processes of a terminal are told
                child.send_signal(signal.SIGHUP)
            served.signal(signal.SIGHUP)
            stream.end()
            assert stream.is_done and stream.errors == []
            assert served.end() == 0
        assert list(Path(folder).iterdir()) == []


def test_the_end_of_the_terminal_removes_the_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving("--uds", str(path)) as served:
        served.line("(listening) at")
        served.signal(signal.SIGHUP)
        assert served.end() in (0, 128 + signal.SIGHUP)
    assert not path.exists()


@_ANY
def test_a_killed_server_leaves_no_files(flags: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory(prefix="q") as folder:
        with serving(*flags, TMPDIR=folder) as served:
            served.until(lambda: served.count("ready: ") == (2 if flags else 1))
            assert served.ask("POST", "/v1/completions", json=SHORT).status_code == 200
            served.signal(signal.SIGKILL)
            assert served.end() == -signal.SIGKILL
        assert list(Path(folder).iterdir()) == []


@_ANY
def test_a_core_that_hangs_is_killed_at_the_end(flags: tuple[str, ...]) -> None:
    with serving(*flags, "--shutdown-timeout", "1") as served:
        served.until(lambda: served.count("ready: ") == (2 if flags else 1))
        stream = Stream(served)
        served.core.suspend()
        started = time.monotonic()
        served.signal(signal.SIGTERM)
        assert served.end() == 0
        assert time.monotonic() - started < 1 + PATIENCE_S + _SECONDS_TO_END
        stream.end()
        assert served.count("SIGTERM: shutting down") == 1
        assert served.count("the server has ended") == 1
        assert served.count("has not answered for 3 s; it is killed") == 1


@_ANY
def test_the_end_of_the_terminal_while_it_starts(flags: tuple[str, ...]) -> None:
    with serving(*flags) as served:
        served.line("(listening) at")
        served.until(lambda: served.children("") != [])
        for child in served.children(""):
            child.send_signal(signal.SIGHUP)
        served.signal(signal.SIGHUP)
        assert served.end() == 0
        assert not any("Traceback" in line for line in served.lines)


@_ANY
def test_a_second_signal_breaks_off_what_runs_and_says_so(flags: tuple[str, ...]) -> None:
    with serving(*flags) as served:
        served.until(lambda: served.count("ready: ") == (2 if flags else 1))
        streams = [Stream(served) for _ in range(2)]
        served.signal(signal.SIGTERM)
        served.line("(finishing) ")
        started = time.monotonic()
        served.signal(signal.SIGINT)
        assert served.end() == 0
        assert time.monotonic() - started < _SECONDS_TO_END
        for stream in streams:
            stream.end()
            assert stream.is_done and stream.errors == []
        assert served.count("second signal: aborting") >= 1
        assert not any("Traceback" in line for line in served.lines)


@_ANY
def test_a_server_whose_log_nobody_reads_answers_and_drains(
    flags: tuple[str, ...], tmp_path: Path
) -> None:
    unread, stderr = os.pipe()
    os.close(unread)
    path = str(tmp_path / "socket")
    command = [sys.executable, "-m", "quire", "serve", *ENGINE, "--enable-access-log", *flags]
    process = subprocess.Popen([*command, "--uds", path], stderr=stderr)
    os.close(stderr)
    try:
        while not listens(path):
            assert process.poll() is None
            time.sleep(0.1)
        transport = httpx.HTTPTransport(uds=path)
        with httpx.Client(transport=transport, base_url="http://q", timeout=TIMEOUT_S) as client:
            while client.get("/readyz").status_code != 200:
                time.sleep(0.1)
            assert client.post("/v1/completions", json=SHORT).status_code == 200
            with client.stream("POST", "/v1/completions", json={**LONG, "stream": True}) as answer:
                lines = answer.iter_lines()
                assert next(lines)
                process.send_signal(signal.SIGTERM)
                assert "data: [DONE]" in list(lines)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()


def listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(path) == 0
