"""Several HTTP processes as one: what runs in any of them is seen, limited and ended in all."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.server import peers
from quire.server.args import ServerArgs
from quire.server.peers import Counts, Place
from quire.server.state import Phase, RunningRequest, ServerState
from tests.fakes.server import in_process_client, ready_state


@pytest.fixture
def places() -> Iterator[list[Place]]:
    with (
        tempfile.TemporaryDirectory(prefix="q") as folder,  # paths of sockets must be short
        tempfile.TemporaryFile(dir=folder, buffering=0) as counts,
    ):
        yield Place.make_all(folder, counts.fileno(), 3)


@contextlib.asynccontextmanager
async def listening(*states: ServerState) -> AsyncIterator[None]:
    for state in states:
        await state.peers.listen()
    yield
    for state in states:
        await state.peers.close()


def begin(
    state: ServerState, request_id: str, age_s: float = 0.0, client_request_id: str = ""
) -> list[str]:
    """A request runs; the list tells whether it was cancelled."""
    cancelled: list[str] = []
    request = RunningRequest(
        request_id=request_id,
        client_request_id=client_request_id or request_id,
        endpoint="/v1/completions",
        model="m",
        arrival_time=time.time() - age_s,
        cancel=lambda: cancelled.append(request_id),
        drop=lambda: None,
    )
    state.running.add(request)
    return cancelled


def test_each_process_counts_for_all(places: list[Place]) -> None:
    first, second, third = (Counts(place) for place in places)
    first.set(3)
    third.set(4)
    assert [one.total for one in (first, second, third)] == [7, 7, 7]
    places[0].vacate()  # as the supervisor does for one that has died
    assert second.total == 4


async def test_the_server_is_ready_when_none_that_listens_loads(places: list[Place]) -> None:
    async def ready(state: ServerState) -> tuple[int, int]:
        async with in_process_client(state) as client:
            answers = [await client.get(path) for path in ("/readyz", "/health")]
        return answers[0].status_code, answers[1].status_code

    first, second = (ServerState(args=ServerArgs(), place=place) for place in places[:2])
    first.enter(Phase.READY, "ready")
    second.enter(Phase.READY, "ready")
    assert await ready(first) == (503, 503)  # the third has not even begun
    ServerState(args=ServerArgs(), place=places[2]).enter(Phase.READY, "ready")
    assert await ready(first) == await ready(second) == (200, 200)
    second.enter(Phase.LOADING, "the engine died and is started again")
    assert await ready(first) == (503, 503)
    places[1].vacate()
    ServerState(args=ServerArgs(), place=places[1], listens=False)  # others do meanwhile
    assert await ready(first) == (200, 200)


def test_a_process_that_is_alone_counts_itself() -> None:
    state = ServerState(args=ServerArgs())
    begin(state, "a")
    begin(state, "b")
    state.running.remove("a")
    assert state.running.num_everywhere == 1


async def test_requests_of_all_processes_are_listed_and_cancelled(places: list[Place]) -> None:
    first, second, third = (ServerState(args=ServerArgs(), place=place) for place in places)
    begin(first, "young", age_s=1)
    old, middle = begin(third, "old", age_s=9), begin(second, "middle", age_s=5)
    async with listening(first, second, third), in_process_client(first) as client:
        listed = (await client.get("/v1/requests")).json()["data"]
        assert [row["id"] for row in listed] == ["old", "middle", "young"]
        assert listed[0]["endpoint"] == "/v1/completions"
        assert (await client.get("/load")).json() == {"server_load": 3}
        answer = await client.post("/v1/requests/chatcmpl-old/cancel")
        assert answer.json() == {"id": "old", "object": "request", "status": "cancelled"}
        assert (old, middle) == (["old"], [])
        assert (await client.post("/v1/requests/nobody/cancel")).status_code == 404


async def test_an_id_that_several_have_is_ambiguous_wherever_they_run(places: list[Place]) -> None:
    first, second, third = (ServerState(args=ServerArgs(), place=place) for place in places)
    one, other = begin(second, "x-1", client_request_id="x"), begin(third, "x")
    async with listening(first, second, third), in_process_client(first) as client:
        answer = await client.post("/v1/requests/x/cancel")
        assert (
            answer.status_code == 409
            and "2 requests with the id 'x' are running: x, x-1" in answer.text
        )
        assert one == other == []
        assert (await client.post("/v1/requests/cmpl-x-1/cancel")).json()["id"] == "x-1"
        assert (one, other) == (["x-1"], [])


async def test_the_limit_of_the_queue_is_one_for_all(places: list[Place], engine: AsyncLLM) -> None:
    args = {"max_queued_requests": 2}
    busy = ServerState(args=ServerArgs(**args), place=places[1])
    idle = ready_state(engine, place=places[0], **args)
    body = {"prompt": "Hello", "max_tokens": 1}
    begin(busy, "a")
    async with in_process_client(idle) as client:
        assert (await client.post("/v1/completions", json=body)).status_code == 200
        begin(busy, "b")
        refused = await client.post("/v1/completions", json=body)
        assert refused.status_code == 429 and "2 requests in flight" in refused.text
        busy.running.remove("a")
        assert (await client.post("/v1/completions", json=body)).status_code == 200


async def test_processes_that_are_not_there_are_left_out(places: list[Place]) -> None:
    first, second, _ = (ServerState(args=ServerArgs(), place=place) for place in places)
    begin(second, "a")
    async with listening(first), listening(second):
        assert [row["id"] for row in await first.peers.rows()] == ["a"]
    assert await first.peers.rows() == []
    async with listening(second):  # at the path where the one before it listened
        assert [row["id"] for row in await first.peers.rows()] == ["a"]


async def test_half_of_an_answer_is_none(places: list[Place]) -> None:
    first = ServerState(args=ServerArgs(), place=places[0])

    async def end_halfway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'[{"id": "a')
        writer.close()

    async with await asyncio.start_unix_server(end_halfway, f"{places[0].folder}/peer-1"):
        assert await first.peers.rows() == []


async def test_a_process_that_cannot_be_reached_is_an_error_while_it_lives(
    places: list[Place],
) -> None:
    first, second, _ = (ServerState(args=ServerArgs(), place=place) for place in places)
    cancelled = begin(second, "a")
    async with listening(first, second), in_process_client(first) as client:
        Path(places[1].folder, "peer-1").unlink()
        answers = [await client.get("/v1/requests"), await client.post("/v1/requests/a/cancel")]
        assert [answer.status_code for answer in answers] == [503, 503]
        assert all("cannot be reached" in answer.text for answer in answers)
        assert cancelled == []
        places[1].vacate()  # it has ended
        assert (await client.get("/v1/requests")).json()["data"] == []


def test_processes_count_on_when_their_folder_is_gone(places: list[Place]) -> None:
    first, second = Counts(places[0]), Counts(places[1])
    for path in Path(places[0].folder).iterdir():
        path.unlink()
    second.set(3)
    assert (first.total, Counts(places[2]).total) == (3, 3)  # one that starts later, too
    places[1].vacate()
    assert first.total == 0


async def test_a_process_that_hangs_hangs_no_other(
    places: list[Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ServerState(args=ServerArgs(), place=places[0])
    monkeypatch.setattr(peers, "_PATIENCE_S", 0.05)
    ended = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    async with await asyncio.start_unix_server(hang, f"{places[0].folder}/peer-1"):
        async with in_process_client(first) as client:
            answer: httpx.Response = await client.get("/v1/requests")
        ended.set()
    assert answer.status_code == 503 and "try again" in answer.text
