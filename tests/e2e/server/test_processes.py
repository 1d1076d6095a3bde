"""`quire serve` as processes: from the first answer to the end, and what is left then: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from quire.assets import TINY_CHAT
from tests.fakes.certificates import certificate_files

TIMEOUT_S = 60
ENGINE = ("--device", "cpu", "--max-num-seqs", "8", "--kv-cache-memory-bytes", "32MiB")
LONG = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True, "temperature": 0}
LIMIT = 4  # of requests in flight, where it is tested
SHORT = {"prompt": "The capital of France is", "max_tokens": 4, "temperature": 0}


class Served:
    """A server's process, its log, and its children."""

    def __init__(self, *flags: str, **environment: str) -> None:
        command = [sys.executable, "-m", "quire", "serve", *ENGINE]
        command += () if "--uds" in flags else ("--port", "0")
        self.process = subprocess.Popen(
            [*command, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.seen: dict[int, psutil.Process] = {}

    def line(self, pattern: str) -> str:
        """The first group of a line of the log, once there is one."""
        with self._said:
            self._said.wait_for(
                lambda: self._found(pattern) or not self._reader.is_alive(), TIMEOUT_S
            )
        found = self._found(pattern)
        assert found, "".join(self.lines)
        return found[1]

    def count(self, words: str) -> int:
        """Lines of the log with these words."""
        with self._said:
            return sum(words in line for line in self.lines)

    @property
    def url(self) -> str:
        return self.line(r"listening at (\S+)")

    def client(self, **more: Any) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=TIMEOUT_S, trust_env=False, **more)

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        with self.client() as client:
            return client.request(method, path, **more)

    def until_ready(self) -> None:
        def is_ready() -> bool:
            with contextlib.suppress(httpx.TransportError):  # `until` says why it has ended
                return client.get("/readyz").status_code == 200
            return False

        with self.client() as client:
            self.until(is_ready)

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None and time.monotonic() < end, "".join(self.lines)
            time.sleep(0.02)

    def children(self, module: str) -> list[psutil.Process]:
        """Processes below the server whose command names a module."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        self.seen |= {child.pid: child for child in found}
        return [child for child in found if module in " ".join(_command(child))]

    @property
    def core(self) -> psutil.Process:
        (core,) = self.children("core_process")
        return core

    def signal(self, number: signal.Signals) -> None:
        self.children("")
        self.process.send_signal(number)

    def end(self) -> int:
        """The exit status; asserts that no child is left."""
        status = self.process.wait(TIMEOUT_S)
        _, alive = psutil.wait_procs(list(self.seen.values()), timeout=10)
        assert alive == []
        self._reader.join(TIMEOUT_S)
        return status

    @property
    def last_line(self) -> str:
        return self.lines[-1].strip()

    def _found(self, pattern: str) -> re.Match[str] | None:
        return next((found for one in self.lines if (found := re.search(pattern, one))), None)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()
        with self._said:
            self._said.notify_all()


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@contextlib.contextmanager
def serving(*flags: str, **environment: str) -> Iterator[Served]:
    served = Served(*flags, **environment)
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.children("")
            served.process.kill()
        served.end()
        assert served.process.stderr is not None
        served.process.stderr.close()


class Stream:
    """One long answer, read in a thread from its first event on."""

    def __init__(self, served: Served) -> None:
        self.text, self.errors, self.is_done, self.seconds = "", [], False, 0.0
        self._first = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(served,), daemon=True)
        self._thread.start()
        assert self._first.wait(TIMEOUT_S)

    def end(self) -> None:
        started = time.monotonic()
        self._thread.join(TIMEOUT_S)
        self.seconds = time.monotonic() - started
        assert not self._thread.is_alive()

    def _read(self, served: Served) -> None:
        body = {**LONG, "stream": True}
        try:
            with (
                served.client() as client,
                client.stream("POST", "/v1/completions", json=body) as r,
            ):
                for line in r.iter_lines():
                    self._first.set()
                    self._take(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            self.errors.append(repr(error))
        self._first.set()

    def _take(self, data: str) -> None:
        if data == "[DONE]":
            self.is_done = True
        elif data.startswith("{"):
            event = json.loads(data)
            if "error" in event:
                self.errors.append(event["error"]["message"])
            else:
                self.text += event["choices"][0]["text"]


def test_it_answers_while_it_loads_and_drains_at_sigterm() -> None:
    with serving("--api-key", "secret") as served:
        assert served.ask("GET", "/livez").status_code == 200
        progress = served.ask("GET", "/startupz")
        assert progress.status_code == 503 and progress.json()["state"] == "loading"
        assert served.ask("GET", "/health").status_code == 503
        served.until_ready()
        phases = served.ask("GET", "/startupz").json()["phase_seconds"]
        assert {"configuration", "tokenizer", "core process", "weights", "warm-up"} <= phases.keys()
        assert served.ask("POST", "/v1/completions", json=SHORT).status_code == 401
        key = {"Authorization": "Bearer secret"}
        answer = served.ask("POST", "/v1/completions", json=SHORT, headers=key)
        assert answer.json()["usage"]["completion_tokens"] == 4
        served.signal(signal.SIGTERM)
        assert served.end() == 0


@pytest.mark.parametrize("flags", [(), ("--api-server-count", "2")])
def test_running_requests_finish_and_new_ones_are_refused_while_it_drains(
    flags: tuple[str, ...],
) -> None:
    with serving(*flags) as served:
        served.until_ready()
        stream = Stream(served)
        served.signal(signal.SIGTERM)
        with served.client() as client:
            served.until(lambda: client.get("/readyz").status_code == 503)
            refused = client.post("/v1/completions", json=SHORT)
            assert refused.status_code == 503 and refused.headers["retry-after"]
            assert client.get("/health").status_code == 200
        stream.end()
        assert stream.errors == [] and stream.is_done and stream.text
        assert served.end() == 0


def test_the_time_limit_of_draining() -> None:
    with serving("--shutdown-timeout", "0") as served:
        served.until_ready()
        stream = Stream(served)
        served.signal(signal.SIGTERM)
        stream.end()
        assert served.end() == 0


@pytest.mark.parametrize("flags", [(), ("--api-server-count", "2")])
def test_sigterm_while_loading_ends_it_at_once(flags: tuple[str, ...]) -> None:
    with serving(*flags) as served:
        served.until(lambda: served.children("core_process") != [])
        served.signal(signal.SIGTERM)
        assert served.end() == 0
        assert served._found("ready:") is None


def test_nothing_outlives_a_killed_server() -> None:
    with serving("--api-server-count", "2") as served:
        served.until_ready()
        assert len(served.children("server.http_process")) == 2
        served.signal(signal.SIGKILL)
        assert served.end() == -signal.SIGKILL


def test_several_processes_share_one_engine() -> None:
    flags = ("--api-server-count", "2", "--restart-engine", "--max-queued-requests", str(LIMIT))
    with serving(*flags) as served:
        served.until(lambda: served.count("ready: ") == 2)
        texts = set(asyncio.run(_texts(served.url, LIMIT)))
        assert len(texts) == 1, "every process gets its own answers"
        _each_process_speaks_for_all(served)
        victim = served.children("server.http_process")[0]
        victim.kill()
        served.line(rf"(HTTP process {victim.pid} was killed by SIGKILL)")
        served.until(lambda: len(served.children("server.http_process")) == 2)
        _all_are_answered_until(served, lambda: served.count("ready: ") == 3)
        assert served.core.is_running()
        served.core.kill()
        served.line("(the engine died and is started again)")
        served.until(lambda: len(served.children("core_process")) == 1)
        served.until(lambda: _is_served(served))
        served.signal(signal.SIGTERM)
        assert served.end() == 0


def _all_are_answered_until(served: Served, condition: Callable[[], bool]) -> None:
    """By the process that is left, while another one starts."""

    def holds() -> bool:
        assert served.ask("GET", "/readyz").status_code == 200
        return condition()

    served.until(holds)


def _each_process_speaks_for_all(served: Served) -> None:
    """Connections go to either process, as the system likes."""
    streams = [Stream(served) for _ in range(LIMIT)]
    answers = [served.ask("GET", "/v1/requests").json()["data"] for _ in range(6)]
    (ids,) = {tuple(sorted(row["id"] for row in rows)) for rows in answers}
    assert len(ids) == LIMIT
    assert {served.ask("GET", "/load").json()["server_load"] for _ in range(6)} == {LIMIT}
    full = [served.ask("POST", "/v1/completions", json=SHORT).status_code for _ in range(6)]
    assert set(full) == {429}
    for one in ids:
        assert served.ask("POST", f"/v1/requests/cmpl-{one}/cancel").json()["id"] == one
    for stream in streams:
        stream.end()
        assert stream.is_done and stream.seconds < 2, "it was ended"
    served.until(lambda: served.ask("GET", "/load").json() == {"server_load": 0})


def _is_served(served: Served) -> bool:
    """By both processes, most likely."""
    answers = [served.ask("POST", "/v1/completions", json=SHORT) for _ in range(4)]
    return all(answer.status_code == 200 for answer in answers)


async def _texts(url: str, count: int) -> list[str]:
    async def one() -> str:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
            body = {**SHORT, "max_tokens": 30}
            answer = await client.post("/v1/completions", json=body)
            return str(answer.json()["choices"][0]["text"])

    return await asyncio.gather(*(one() for _ in range(count)))


def test_tls_and_root_path(tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path)
    flags = ("--ssl-certfile", certificate, "--ssl-keyfile", key, "--root-path", "/api")
    with serving(*flags) as served:
        assert served.url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=certificate)
        with served.client(verify=context) as client:
            assert client.get("/openapi.json").json()["servers"] == [{"url": "/api"}]
            for path in ("/livez", "/api/livez"):  # a proxy takes it off, or does not
                assert client.get(path).status_code == 200
        address = ("127.0.0.1", int(served.url.rpartition(":")[2]))
        assert _tls_version(address, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            _tls_version(address, ssl.TLSVersion.TLSv1_1)
        with served.client(verify=context) as client:
            assert client.get("/livez").status_code == 200
            served.signal(signal.SIGTERM)  # nobody waits for a client that idles
            assert served.end() == 0 and served.count("timeout") == 0


def _tls_version(address: tuple[str, int], wanted: ssl.TLSVersion) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old versions are deprecated
        context.minimum_version = context.maximum_version = wanted
    context.set_ciphers("ALL:@SECLEVEL=0")
    with socket.create_connection(address, TIMEOUT_S) as plain, context.wrap_socket(plain) as tls:
        return tls.version()


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving("--uds", str(path)) as served:
        assert served.url == f"unix:{path}"
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(
            transport=transport, base_url="http://quire", timeout=TIMEOUT_S
        ) as client:
            assert client.get("/livez").status_code == 200
        served.signal(signal.SIGTERM)
        assert served.end() == 0
    assert not path.exists()


def test_an_unknown_model_is_one_line() -> None:
    with serving("--model", "/nonexistent") as served:
        assert served.end() == 1
        assert served.last_line.startswith("quire serve: error: ")
        assert "/nonexistent" in served.last_line
        assert not any("Traceback" in line for line in served.lines)


@pytest.mark.parametrize(
    ("flags", "cause"),
    [
        (("--model", "/nonexistent"), "/nonexistent"),  # before the port listens
        (("--ssl-keyfile", "/nonexistent"), "--ssl-certfile"),
        (("--max-model-len", "100000"), "max_model_len=100000"),  # behind it
    ],
)
def test_why_it_did_not_start_is_json_in_a_json_log(flags: tuple[str, ...], cause: str) -> None:
    with serving("--log-format", "json", *flags) as served:
        assert served.end() == 1
        *_, last = (json.loads(line) for line in served.lines)
        assert cause in last["message"]
        assert not any("Traceback" in line for line in served.lines)


def test_the_older_way_to_start_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        module = "quire.entrypoints.openai.api_server"
        ended = subprocess.run(
            [sys.executable, "-m", module, "--model", str(TINY_CHAT), "--port", port],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
    assert ended.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in ended.stderr
    assert ended.stderr.count("\n") == 1
