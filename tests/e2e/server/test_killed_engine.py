"""Kill -9 of the engine's process under load: every client hears of it, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.server.test_processes import LONG, SHORT, TIMEOUT_S, Served, serving
from tests.fakes.api_cases import engine_numbers

NUM_AT_ONCE = 8  # of `ENGINE`
NUM_CLIENTS = 3 * NUM_AT_ONCE
DEADLINE_S = 2.0


@pytest.fixture
def own_folder(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment whose temporary files are seen, and must be gone at the end. It is short, for
    paths of sockets may not be long."""
    with tempfile.TemporaryDirectory(prefix="q") as folder:
        shared_memory = set(Path("/dev/shm").iterdir())
        yield {"TMPDIR": folder}
        assert list(Path(folder).iterdir()) == []
        left = [one.name for one in set(Path("/dev/shm").iterdir()) - shared_memory]
        assert [name for name in left if "quire" in name or "torch" in name] == []


@dataclass(slots=True)
class Heard:
    """What one client was told."""

    status: int
    last: str  # line
    is_stream: bool
    ended: float  # time.monotonic()


async def _client(client: httpx.AsyncClient, is_stream: bool) -> Heard:
    body: dict[str, Any] = {**LONG, "stream": is_stream}
    last = ""
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        async for line in answer.aiter_lines():
            if line and line != "data: [DONE]":
                last = line
    return Heard(answer.status_code, last, is_stream, time.monotonic())


async def _kill_under_load(served: Served) -> tuple[float, list[Heard]]:
    """When it was killed, and what those clients heard whose requests ran or waited then."""
    url = served.url
    names = ("quire:num_requests_running", "quire:num_requests_waiting")
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=url, timeout=TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        clients = [asyncio.create_task(_client(client, i % 2 == 0)) for i in range(NUM_CLIENTS)]

        def all_are_there() -> bool:
            """But those that have ended already."""
            num_ended = sum(one.done() for one in clients)
            running, waiting = engine_numbers(url, *names)
            return running > 0 and running + waiting + num_ended >= NUM_CLIENTS

        await asyncio.to_thread(served.until, all_are_there)
        core = served.core
        killed = time.monotonic()
        core.kill()
        heard = await asyncio.wait_for(asyncio.gather(*clients), TIMEOUT_S)
    return killed, [one for one in heard if one.ended >= killed]


def _assert_all_heard(killed: float, heard: list[Heard]) -> None:
    assert len(heard) > NUM_AT_ONCE, "some were waiting"
    print(f"{len(heard)} heard within {max(one.ended for one in heard) - killed:.2f} s")
    for one in heard:
        assert '"error"' in one.last and "SIGKILL" in one.last, one
        assert one.ended - killed < DEADLINE_S
        # A stream that had not begun is an ordinary error.
        assert one.status == 500 or (one.is_stream and one.status == 200)


@pytest.mark.parametrize("flags", [(), ("--api-server-count", "2")])
def test_every_client_hears_of_it_and_the_server_ends(
    own_folder: dict[str, str], flags: tuple[str, ...]
) -> None:
    with serving(*flags, **own_folder) as served:
        served.until(lambda: served.count("ready: ") == (2 if flags else 1))  # every process is
        killed, heard = asyncio.run(_kill_under_load(served))
        _assert_all_heard(killed, heard)
        assert served.end() == 1
        assert "SIGKILL" in served.last_line
        assert not any("Traceback" in line for line in served.lines)


@pytest.mark.parametrize("flags", [(), ("--api-server-count", "2")])
def test_the_last_line_of_a_json_log_is_json_and_has_the_cause(flags: tuple[str, ...]) -> None:
    with serving("--log-format", "json", *flags) as served:
        served.until_ready()
        served.core.kill()
        assert served.end() == 1
        *_, last = (json.loads(line) for line in served.lines)
        assert last["level"] == "critical"
        assert "SIGKILL" in last["message"].splitlines()[-1]


def test_every_client_hears_of_it_and_the_next_engine_serves(own_folder: dict[str, str]) -> None:
    with serving("--restart-engine", **own_folder) as served:
        served.until_ready()
        first = served.core.pid
        before = served.ask("POST", "/v1/completions", json=SHORT).json()["choices"]
        killed, heard = asyncio.run(_kill_under_load(served))
        _assert_all_heard(killed, heard)
        served.until(lambda: served.ask("GET", "/readyz").status_code == 503)
        served.until_ready()
        assert served.core.pid != first
        assert served.ask("POST", "/v1/completions", json=SHORT).json()["choices"] == before
        assert served.ask("GET", "/load").json() == {"server_load": 0}
        served.signal(signal.SIGTERM)
        assert served.end() == 0
