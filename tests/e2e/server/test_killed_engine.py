"""Kill -9 of the engine's process under load: every client hears of it, and nothing is left."""

from __future__ import annotations

import asyncio
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

NUM_CLIENTS = 24  # three times as many as run at once
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
    ended: float  # time.monotonic()


async def _client(url: str, number: int, begun: asyncio.Event) -> Heard:
    """Even ones stream."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        body: dict[str, Any] = {**LONG, "stream": number % 2 == 0}
        last = ""
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                begun.set()
                if line and line != "data: [DONE]":
                    last = line
        return Heard(answer.status_code, last, time.monotonic())


async def _kill_under_load(served: Served) -> tuple[float, list[Heard]]:
    begun, url = asyncio.Event(), served.url
    clients = [asyncio.create_task(_client(url, i, begun)) for i in range(NUM_CLIENTS)]
    await asyncio.wait_for(begun.wait(), TIMEOUT_S)
    names = ("quire:num_requests_running", "quire:num_requests_waiting")
    await asyncio.to_thread(served.until, lambda: sum(engine_numbers(url, *names)) == NUM_CLIENTS)
    core = served.core
    killed = time.monotonic()
    core.kill()
    return killed, await asyncio.wait_for(asyncio.gather(*clients), TIMEOUT_S)


def _assert_all_heard(killed: float, heard: list[Heard]) -> None:
    assert len(heard) == NUM_CLIENTS
    for one in heard:
        assert '"error"' in one.last and "SIGKILL" in one.last, one
        assert one.ended - killed < DEADLINE_S
    for number, one in enumerate(heard):
        # A stream that had not begun is an ordinary error.
        assert one.status == 500 or (number % 2 == 0 and one.status == 200)


@pytest.mark.parametrize("flags", [(), ("--api-server-count", "2")])
def test_every_client_hears_of_it_and_the_server_ends(
    own_folder: dict[str, str], flags: tuple[str, ...]
) -> None:
    with serving(*flags, **own_folder) as served:
        served.until_ready()
        killed, heard = asyncio.run(_kill_under_load(served))
        _assert_all_heard(killed, heard)
        assert served.end() == 1
        assert "SIGKILL" in served.last_line


def test_every_client_hears_of_it_and_the_next_engine_serves(own_folder: dict[str, str]) -> None:
    with serving("--restart-engine", **own_folder) as served:
        served.until_ready()
        before = served.ask("POST", "/v1/completions", json=SHORT).json()["choices"]
        killed, heard = asyncio.run(_kill_under_load(served))
        _assert_all_heard(killed, heard)
        served.until(lambda: served.ask("GET", "/readyz").status_code == 503)
        served.until_ready()
        assert served.ask("POST", "/v1/completions", json=SHORT).json()["choices"] == before
        assert served.ask("GET", "/load").json() == {"server_load": 0}
        served.signal(signal.SIGTERM)
        assert served.end() == 0
