"""What a server tells about itself: metrics, the dashboard's names, information, page data."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from quire.engine.async_engine import AsyncLLM
from quire.errors import EngineDeadError
from quire.metrics.stats_poll import Poll
from quire.server.page import MAX_CELLS, block_picture
from quire.server.peers import Place
from quire.server.state import Phase, ServerState
from quire.server.watch import RecentLatencies
from quire.step_output import EngineStats
from tests.fakes.server import MODEL, in_process_client, ready_state
from tests.unit.metrics.ends import ended

DOCS = Path(__file__).parents[3] / "docs"
DASHBOARD = DOCS / "grafana.json"
BODY = {"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 6}
KEYED = {"Authorization": "Bearer sesame"}


@pytest.fixture
async def state(engine: AsyncLLM) -> ServerState:
    state = ready_state(engine, strict_fields="warn", api_key=("sesame",), uds="/tmp/secret/socket")
    state.watch.engine_ready(engine, MODEL)
    return state


@pytest.fixture
async def client(state: ServerState) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process_client(state) as client:
        client.headers.update(KEYED)
        yield client


async def samples(client: httpx.AsyncClient) -> dict[tuple[str, str], float]:
    """By name and the label that is told apart, if there is one."""
    text = (await client.get("/metrics")).text
    return {
        (sample.name, next((v for k, v in sample.labels.items() if k in _TOLD_APART), "")): (
            sample.value
        )
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


_TOLD_APART = ("finished_reason", "status", "field", "phase", "le")


async def test_every_endpoint_is_counted_alike(client: httpx.AsyncClient) -> None:
    before = await samples(client)
    await client.post("/v1/completions", json=BODY)
    await client.post("/v1/completions", json={**BODY, "stream": True})
    chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6}
    await client.post("/v1/chat/completions", json=chat)
    after = await samples(client)
    for prefix in ("vllm", "quire"):
        for name in (
            *("request_prompt_tokens", "time_to_first_token_seconds"),
            *("request_queue_time_seconds", "e2e_request_latency_seconds"),
        ):
            key = (f"{prefix}:{name}_count", "")
            assert after[key] - before[key] == 3, key
        ended = [(f"{prefix}:request_success_total", reason) for reason in ("stop", "length")]
        assert sum(after[key] - before[key] for key in ended) == 3
        tokens = (f"{prefix}:generation_tokens_total", "")
        assert 3 < after[tokens] - before[tokens] <= 18


async def test_http_responses_are_counted_by_status(client: httpx.AsyncClient) -> None:
    await client.get("/nothing/like/this")
    await client.get("/v1/models", headers={"Authorization": "Bearer wrong"})
    await client.post("/v1/completions", json={**BODY, "flavour": "sweet"})
    text = (await client.get("/metrics")).text
    responses = "quire:http_responses_total"
    assert f'{responses}{{handler="none",method="GET",status="404"}} 1.0' in text
    assert f'{responses}{{handler="/v1/models",method="GET",status="401"}} 1.0' in text
    assert f'{responses}{{handler="/v1/completions",method="POST",status="200"}} 1.0' in text
    assert 'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 1.0' in text
    assert 'quire:ignored_fields_total{field="flavour"} 1.0' in text
    assert "quire:http_requests_active 1.0" in text  # this one


async def test_the_dashboard_asks_only_for_metrics_that_exist(client: httpx.AsyncClient) -> None:
    await client.post("/v1/completions", json={**BODY, "flavour": "sweet"})
    text = (await client.get("/metrics")).text
    known = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    asked: set[str] = set()
    for panel in board["panels"]:
        for target in panel["targets"]:
            found = re.findall(r"\b(?:(?:vllm|quire):|process_)\w+", target["expr"])
            assert found, f"{panel['title']} asks for no metric: {target['expr']}"
            asked.update(found)
    assert asked - known == set()
    assert len(asked) > 25


async def test_the_documentation_names_all_metrics_that_have_one_prefix(
    client: httpx.AsyncClient,
) -> None:
    text = (await client.get("/metrics")).text
    kinds = set(re.findall(r"^# TYPE (\w+):(\w+) ", text, re.MULTILINE))
    by_prefix = {prefix: {name for of, name in kinds if of == prefix} for prefix in _PREFIXES}
    both = by_prefix["vllm"] & by_prefix["quire"]
    page = (DOCS / "observability.md").read_text(encoding="utf-8")
    for prefix, names in by_prefix.items():
        assert set(re.findall(rf"`{prefix}:(\w+)[`{{]", page)) == names - both


_PREFIXES = ("vllm", "quire")


class SlowCore:
    """Tells its steps, unless it is stopped."""

    num_running = 0

    def __init__(self) -> None:
        self.num_steps = 0
        self.goes_on = asyncio.Event()
        self.goes_on.set()

    async def stats(self) -> EngineStats:
        await self.goes_on.wait()
        return EngineStats(
            num_steps=self.num_steps,
            num_generation_tokens=self.num_steps,
            num_running=self.num_running,
        )


STEPS = ("quire:num_steps_total", "")


async def test_counts_never_fall_from_one_http_process_to_the_next(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.metrics.stats_poll._PATIENCE_S", 0.05)
    core = SlowCore()
    monkeypatch.setattr(engine, "stats", core.stats)
    with (
        tempfile.TemporaryDirectory(prefix="q") as folder,
        tempfile.TemporaryFile(dir=folder, buffering=0) as counts,
    ):
        places = Place.make_all(folder, counts.fileno(), 3)
        states = [ready_state(engine, place=one) for one in places]
        for state in states:
            state.watch.engine_ready(engine, MODEL)

        async def scrape(index: int) -> dict[tuple[str, str], float]:
            async with in_process_client(states[index]) as client:
                return await samples(client)

        core.num_steps = 1188
        assert (await scrape(0))[STEPS] == 1188
        core.num_steps = 1288
        assert (await scrape(1))[STEPS] == 1288
        core.goes_on.clear()
        for index in (0, 1, 2):
            told = await scrape(index)
            assert STEPS not in told
            assert ("quire:kv_cache_bytes", "") in told, "which does not change"
        core.goes_on.set()
        assert (await scrape(0))[STEPS] == 1288


async def test_a_single_process_shows_what_its_engine_told_last_but_nothing_before_the_first(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.metrics.stats_poll._PATIENCE_S", 0.05)
    core = SlowCore()
    core.goes_on.clear()
    monkeypatch.setattr(engine, "stats", core.stats)
    state = ready_state(engine)
    state.watch.engine_ready(engine, MODEL)
    async with in_process_client(state) as client:
        assert STEPS not in await samples(client)
        core.num_steps = 7
        core.goes_on.set()
        assert (await samples(client))[STEPS] == 7
        core.goes_on.clear()
        assert (await samples(client))[STEPS] == 7


async def test_rates_are_those_of_the_engine_that_runs(
    engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is watched for the first time here, however much it has done."""
    rate = ("vllm:avg_generation_throughput_toks_per_s", "")
    state = ready_state(engine)
    async with in_process_client(state) as client:
        with caplog.at_level(logging.INFO, logger="quire.metrics"):
            caplog.clear()
            for num_steps in (9000, 20, 500):
                core = SlowCore()
                core.num_steps = num_steps
                monkeypatch.setattr(engine, "stats", core.stats)
                state.watch.engine_ready(engine, MODEL)
                await state.watch.look()
                assert (await samples(client))[rate] == 0.0
            assert caplog.messages == []
            core.num_steps += 10
            await state.watch.look()
        assert (await samples(client))[rate] > 0.0
    assert len(caplog.messages) == 1


async def test_rates_that_nobody_knows_yet_are_not_logged(
    engine: AsyncLLM, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a process takes another one's place while the engine is busy."""
    core, watch = SlowCore(), ready_state(engine).watch
    core.num_steps, core.num_running = 9000, 6
    watch.stats = Poll(core.stats, EngineStats())
    with caplog.at_level(logging.INFO, logger="quire.metrics"):
        caplog.clear()
        await watch.look()
        assert caplog.messages == []
        core.num_steps += 10
        await watch.look()
    (message,) = caplog.messages
    assert message.startswith("running 6, ") and "generation 0.0" not in message


async def test_metrics_need_the_key_and_work_without_an_engine(engine: AsyncLLM) -> None:
    state = ready_state(engine, api_key=("sesame",))
    state.engine, state.models, state.phase = None, None, Phase.LOADING
    async with in_process_client(state) as client:
        assert (await client.get("/metrics")).status_code == 401
        response = await client.get("/metrics", headers=KEYED)
        assert "quire:uptime_seconds" in response.text
        assert "num_requests_running" not in response.text
        page = (await client.get("/page-data", headers=KEYED)).json()
        assert (page["state"], page["stats"], page["model"]) == ("loading", None, None)
        assert (await client.get("/server_info", headers=KEYED)).json()["state"] == "loading"


async def test_server_info_has_no_keys_and_no_paths(client: httpx.AsyncClient) -> None:
    response = await client.get("/server_info")
    info = response.json()
    assert info["memory"]["num_blocks"] > 1
    assert info["engine"]["device"]["device"] == "cpu"
    assert info["model"]["names"] == [MODEL]
    assert info["versions"]["torch"]
    assert "sesame" not in response.text
    assert not re.search(r"\"[^\"]*/[\w.-]+/", response.text), "a path"


async def test_page_data_shows_the_blocks_of_a_running_request(
    client: httpx.AsyncClient, engine: AsyncLLM
) -> None:
    outputs = engine.generate(
        {"prompt_token_ids": [5] * 100}, engine.get_default_sampling_params(), "page"
    )
    params = {**BODY, "max_tokens": 400, "ignore_eos": True}
    await outputs.aclose()
    request = asyncio.create_task(client.post("/v1/completions", json=params))
    seen = []
    while not request.done():
        data = (await client.get("/page-data")).json()
        seen.append((data["stats"]["num_running"], sum(data["blocks"]["counts"][1:3])))
    assert any(running == 1 and blocks > 0 for running, blocks in seen)
    assert data["blocks"]["counts"][0] > 0
    assert (await client.get("/page-data")).json()["ttft_s"] > 0


async def test_the_page_shows_no_numbers_that_are_old(
    client: httpx.AsyncClient, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of an engine that is stopped, stuck, or has just died."""
    assert (await client.get("/page-data")).json()["stats"] is not None

    async def dead() -> EngineStats:
        raise EngineDeadError("gone")

    monkeypatch.setattr(state.watch, "stats", Poll(dead, EngineStats()))
    data = (await client.get("/page-data")).json()
    assert (data["state"], data["stats"], data["blocks"]) == ("ready", None, None)


def test_the_first_token_is_that_of_requests_of_the_last_minute() -> None:
    now = 1000.0
    latencies = RecentLatencies(clock=lambda: now)
    assert latencies.median_ttft is None
    latencies.request_ended(ended(first_token_latency=4.0))
    now += 50
    latencies.request_ended(ended(first_token_latency=2.0))
    assert latencies.median_ttft == 3.0
    now += 20
    assert latencies.median_ttft == 2.0
    now += 60
    assert latencies.median_ttft is None
    latencies.request_ended(ended(first_token_latency=1.0))
    assert latencies.median_ttft == 1.0


def test_a_request_without_a_first_token_has_no_latency() -> None:
    latencies = RecentLatencies()
    latencies.request_ended(ended(first_token_ts=0.0))
    assert latencies.median_ttft is None


@pytest.mark.parametrize("path", ["/", "/page/style.css", "/page/page.js", "/page/icon.svg"])
async def test_the_page_needs_no_key_and_loads_nothing_from_elsewhere(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path, headers={"Authorization": ""})
    assert response.status_code == 200
    assert "default-src 'self'" in response.headers["content-security-policy"]
    links = set(re.findall(r"https?://[\w.]+", response.text))
    assert links <= {"http://www.w3.org"}, "the name of SVG, which nobody loads"


@pytest.mark.parametrize("name", ["%2e%2e%2fpage.py", "page.py", "nothing.js", "%2fetc%2fpasswd"])
async def test_no_other_file_is_served(client: httpx.AsyncClient, name: str) -> None:
    assert (await client.get(f"/page/{name}")).status_code == 404


@pytest.mark.parametrize(("num_blocks", "per_cell"), [(8, 1), (4096, 1), (4097, 2), (50_000, 13)])
def test_a_large_map_is_drawn_with_several_blocks_a_cell(num_blocks: int, per_cell: int) -> None:
    blocks = bytearray(num_blocks)
    blocks[0], blocks[-2], blocks[-1] = 3, 1, 2
    picture = block_picture(bytes(blocks))
    assert picture["per_cell"] == per_cell
    assert len(picture["cells"]) == -(-num_blocks // per_cell) <= MAX_CELLS
    assert (picture["cells"][0], picture["cells"][-1]) == ("3", "2")
    assert picture["counts"] == [num_blocks - 3, 1, 1, 1]


def test_a_cell_of_several_blocks_shows_the_busiest() -> None:
    blocks = bytes([0, 3, 3, 1, 1, 2]) + bytes(MAX_CELLS)
    assert block_picture(blocks)["cells"].startswith("3120")


async def test_throughput_is_logged_only_while_busy(
    state: ServerState, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    await state.watch.look()
    with caplog.at_level(logging.INFO, logger="quire.metrics"):
        caplog.clear()
        await state.watch.look()
        assert caplog.messages == []
        await client.post("/v1/completions", json=BODY)
        await state.watch.look()
    (message,) = caplog.messages
    assert re.search(
        r"running 0, waiting 0, prompts [\d.]+ tok/s, generation [\d.]+ tok/s", message
    )
