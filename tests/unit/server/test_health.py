"""Health, models and what runs, in every phase of a server's life."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import httpx
import pytest
from anthropic.types import ModelInfo

import quire
from quire.engine.async_engine import AsyncLLM
from quire.engine.start import StartWatch
from quire.errors import EngineDeadError
from quire.metrics.stats_poll import Poll
from quire.server.args import ServerArgs
from quire.server.state import Phase, RunningRequest, ServedModels, ServerState
from quire.step_output import EngineStats
from tests.fakes.server import in_process_client, ready_state

ALL = (Phase.LOADING, Phase.READY, Phase.DRAINING, Phase.DEAD)


async def status_of(state: ServerState, path: str, method: str = "GET") -> int:
    async with in_process_client(state) as client:
        answer = await client.request(method, path)
    if answer.status_code == 503:
        assert answer.headers["retry-after"]
    return answer.status_code


@pytest.mark.parametrize(
    ("path", "statuses"),
    [
        ("/health", (503, 200, 200, 503)),
        ("/ping", (503, 200, 200, 503)),
        ("/livez", (200, 200, 200, 503)),
        ("/readyz", (503, 200, 503, 503)),
        ("/startupz", (503, 200, 200, 200)),
        ("/version", (200, 200, 200, 200)),
        ("/load", (200, 200, 200, 200)),
        ("/v1/models", (503, 503, 503, 503)),  # none is there without an engine
    ],
)
async def test_phases(path: str, statuses: tuple[int, ...]) -> None:
    state = ServerState(args=ServerArgs())
    found = []
    for phase in ALL:
        state.enter(phase, "why")
        found.append(await status_of(state, path))
    assert tuple(found) == statuses


@pytest.mark.parametrize("path", ["/health", "/readyz", "/ping", "/v1/models", "/metrics", "/"])
async def test_whoever_may_get_may_ask_with_head(path: str, state: ServerState) -> None:
    assert await status_of(state, path, "HEAD") == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/health", "GET, HEAD"),
        ("/ping", "GET, HEAD, POST"),
        ("/v1/responses/any", "DELETE, GET, HEAD"),
        ("/v1/completions", "POST"),
        ("/docs", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_a_wrong_method_is_told_all_right_ones(
    engine: AsyncLLM, path: str, methods: str, prefix: str
) -> None:
    async with in_process_client(ready_state(engine, root_path=prefix)) as client:
        answer = await client.put(prefix + path, json={})
    assert (answer.status_code, answer.headers["allow"]) == (405, methods)


@pytest.mark.parametrize("sent", ["/health/", "/llm/health/"])  # a proxy takes it off, or does not
async def test_a_slash_too_many_leads_to_the_path_behind_the_proxy(
    engine: AsyncLLM, sent: str
) -> None:
    async with in_process_client(ready_state(engine, root_path="/llm")) as client:
        answer = await client.get(f"{sent}?a=b")
    assert answer.status_code == 307
    assert answer.headers["location"] == "http://localhost/llm/health?a=b"


async def test_the_start_tells_its_phases() -> None:
    state = ServerState(args=ServerArgs(), start=StartWatch())
    assert state.start is not None
    state.start.enter("configuration")
    state.start.enter("weights")
    state.enter(Phase.LOADING, "the model is loading")
    async with in_process_client(state) as client:
        content = (await client.get("/startupz")).json()
    assert (content["state"], content["phase"]) == ("loading", "weights")
    assert content["detail"] == "the model is loading"
    assert list(content["phase_seconds"]) == ["configuration", "weights"]
    assert content["elapsed_seconds"] >= 0


async def test_a_refusal_says_why() -> None:
    state = ServerState(args=ServerArgs(), phase=Phase.DEAD, detail="it was unplugged")
    async with in_process_client(state) as client:
        error = (await client.get("/health")).json()["error"]
    assert error["type"] == "ServiceUnavailableError" and "it was unplugged" in error["message"]


async def test_an_engine_that_does_not_answer_is_neither_healthy_nor_ready_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quire.metrics.stats_poll._PATIENCE_S", 0.0)
    answers = asyncio.Event()

    async def ask() -> EngineStats:
        await answers.wait()
        return EngineStats()

    state = ServerState(args=ServerArgs(), phase=Phase.READY, detail="ready")
    state.watch.stats = Poll(ask, EngineStats())
    await state.watch.stats.get(0.0)
    paths = ("/health", "/ping", "/readyz", "/livez")
    assert [await status_of(state, path) for path in paths] == [200] * 4  # for a while
    monkeypatch.setattr("quire.server.health.MAX_SILENCE_S", 0.0)
    assert [await status_of(state, path) for path in paths] == [503, 503, 503, 200]
    async with in_process_client(state) as client:
        for path, what in (("/health", "healthy"), ("/readyz", "ready")):
            message = (await client.get(path)).json()["error"]["message"]
            silence = rf"Not {what}: the engine core has not answered for \d+ s;"
            assert re.match(silence, message)
    answers.set()
    await state.watch.stats.get(0.0)
    assert [await status_of(state, path) for path in paths] == [200] * 4


@pytest.mark.parametrize("phase", [Phase.READY, Phase.DRAINING])
async def test_a_server_whose_engine_has_died_is_not_up_before_its_phase_says_so(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch, phase: Phase
) -> None:
    state = ready_state(engine)
    state.enter(phase, "why")
    monkeypatch.setattr(AsyncLLM, "dead_error", EngineDeadError("on fire"))
    async with in_process_client(state) as client:
        answers = [
            *[await client.get(path) for path in ("/health", "/ping", "/readyz")],
            await client.post("/v1/completions", json={"prompt": "Hi", "max_tokens": 1}),
            await client.post("/tokenize", json={"prompt": "Hi"}),
        ]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "he server is without an engine: it has died." in answer.json()["error"]["message"]


async def test_version(client: httpx.AsyncClient) -> None:
    assert (await client.get("/version")).json() == {"version": quire.__version__}


async def test_models_have_every_name(state: ServerState) -> None:
    state.models = ServedModels(names=("one", "team/two"), root="r", max_model_len=64, created=5)
    async with in_process_client(state) as client:
        listed = (await client.get("/v1/models")).json()
        assert (await client.get("/v1/models/")).json() == listed
        second = (await client.get("/v1/models/team/two")).json()
        missing = await client.get("/v1/models/three")
    assert [card["id"] for card in listed["data"]] == ["one", "team/two"]
    assert second == listed["data"][1]
    assert (second["object"], second["max_model_len"], second["created"]) == ("model", 64, 5)
    ends = {name: listed[name] for name in ("has_more", "first_id", "last_id")}
    assert ends == {"has_more": False, "first_id": "one", "last_id": "team/two"}
    assert missing.status_code == 404
    assert missing.json()["error"]["message"] == (
        "The model `three` does not exist. Valid names: one, team/two."
    )


@pytest.mark.parametrize(("limit", "most"), [(None, 64), (16, 16), (100, 64)])
async def test_models_are_told_as_anthropics_client_reads_them(
    engine: AsyncLLM, limit: int | None, most: int
) -> None:
    state = ready_state(engine, max_output_tokens=limit)
    state.models = ServedModels(names=("one",), root="r", max_model_len=64, created=5)
    async with in_process_client(state) as client:
        card = ModelInfo.model_validate_json((await client.get("/v1/models/one")).content)
        state.models = replace(state.models, max_tokens_limit=20)
        limited = (await client.get("/v1/models/one")).json()
    assert (card.lifecycle, card.max_input_tokens, card.max_tokens) == ("active", 64, most)
    assert limited["max_tokens"] == min(most, 20)


async def test_answers_report_the_first_name(state: ServerState) -> None:
    state.models = ServedModels(names=("one", "team/two"), root="r", max_model_len=64, created=5)
    async with in_process_client(state) as client:
        for name in ("team/two", "", None):
            body = {"prompt": "x", "max_tokens": 1, "model": name}
            answer = await client.post("/v1/completions", json=body)
            assert answer.json()["model"] == "one"


async def test_what_runs_is_listed_and_can_be_cancelled(state: ServerState) -> None:
    cancelled: list[str] = []
    for index, name in enumerate(("late", "early")):
        state.running.add(
            RunningRequest(
                request_id=name,
                endpoint="/v1/completions",
                model="m",
                arrival_time=10.0 - index,
                num_prompt_tokens=3,
                cancel=lambda name=name: cancelled.append(name),
                drop=lambda: None,
            )
        )
    async with in_process_client(state) as client:
        listed = (await client.get("/v1/requests")).json()["data"]
        load = (await client.get("/load")).json()
        answers = [
            (await client.post(f"/v1/requests/{one}/cancel")).status_code
            for one in ("early", "cmpl-late", "other")
        ]
    assert [(one["id"], one["prompt_tokens"]) for one in listed] == [("early", 3), ("late", 3)]
    assert load == {"server_load": 2}
    assert (answers, cancelled) == ([200, 200, 404], ["early", "late"])


async def test_a_name_of_two_requests_cancels_neither(state: ServerState) -> None:
    cancelled: list[str] = []
    for own, client_id in (("abc", ""), ("1", "resp_abc")):
        state.running.add(
            RunningRequest(
                request_id=own,
                client_request_id=client_id,
                endpoint="/v1/responses",
                model="m",
                arrival_time=1.0,
                cancel=lambda own=own: cancelled.append(own),
                drop=lambda: None,
            )
        )
    async with in_process_client(state) as client:
        answers = [
            (await client.post(f"/v1/requests/{one}/cancel")).status_code
            for one in ("resp_abc", "resp_1")
        ]
    assert (answers, cancelled) == ([409, 200], ["1"])


async def test_the_prefix_cache_can_be_reset(client: httpx.AsyncClient) -> None:
    assert (await client.post("/reset_prefix_cache")).json() == {"status": "ok"}


async def test_cross_origin_requests_are_refused_unless_allowed(state: ServerState) -> None:
    headers = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
    async with in_process_client(state) as client:
        answer = await client.options("/v1/completions", headers=headers)
        assert "access-control-allow-origin" not in answer.headers
    state.args.allowed_origins = ["http://a"]
    state.args.api_key = ["secret"]
    async with in_process_client(state) as client:
        answer = await client.options("/v1/completions", headers=headers)
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (
            *(200, "http://a"),
        )
        page = {"Origin": "http://a"}
        told = await client.get("/health", headers=page)
        exposed = told.headers["access-control-expose-headers"].split(", ")
        assert exposed == ["X-Request-Id", "Request-Id", "Retry-After", "X-Quire-Ignored"]
        refused = await client.get("/v1/models", headers=page)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "http://a"


async def test_the_description_can_be_hidden(state: ServerState) -> None:
    assert await status_of(state, "/openapi.json") == 200
    state.args.disable_fastapi_docs = True
    assert await status_of(state, "/openapi.json") == 404
    assert await status_of(state, "/docs") == 404
