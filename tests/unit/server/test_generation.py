"""How generations end: by clients that leave, limits, errors, and the engine's death.

The core repeats the prompt for ever; token ids with a meaning make it fail.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import msgspec
import pytest

from quire.engine.async_engine import AsyncLLM
from quire.sampling_params import SamplingParams
from quire.server import completions_stream, intake
from quire.server.app import build_app
from quire.server.generation import Generation
from quire.server.input_phase import IN_THREAD_BYTES
from quire.server.openapi import GENERATING
from quire.server.state import Phase, ServerState
from quire.server.usage import Usage
from quire.step_output import EngineStats
from tests.fakes.configs import fake_config
from tests.fakes.fake_core import BUILD_FAKE_CORE, FAIL_ALONE, FAIL_STEP, REFUSE
from tests.fakes.server import BUILD_SILENT_CORE, events_of, in_process_client, ready_state
from tests.fakes.waiting import DEADLINE_S, until

PATH = "/v1/completions"
MOST = 10**9
ENDLESS = {"prompt": [5, 6], "max_tokens": MOST}
SHOWN = {"return_token_ids": True}  # there is no tokenizer, and so no text


@pytest.fixture
def fake_engine() -> Iterator[AsyncLLM]:
    engine = AsyncLLM(
        fake_config(max_model_len=MOST + 10), multiprocess_mode=False, build=BUILD_FAKE_CORE
    )
    yield engine
    engine.shutdown()


@pytest.fixture
def state(fake_engine: AsyncLLM) -> ServerState:
    return ready_state(fake_engine, sse_keep_alive_interval=0)


@pytest.fixture
async def client(state: ServerState) -> AsyncIterator[httpx.AsyncClient]:
    async with in_process_client(state) as client:
        yield client


async def idle(state: ServerState) -> bool:
    engine = state.engine
    assert engine is not None
    await until(lambda: engine.get_num_unfinished_requests() == 0 and len(state.running) == 0)
    await until_core(engine, lambda stats: stats.num_running == 0)
    return True


async def until_core(engine: AsyncLLM, condition: Callable[[EngineStats], bool]) -> None:
    async def holds() -> bool:
        return condition(await engine.stats())

    await until(holds)


class LeavingClient:
    """Sends one request and is gone when told so."""

    def __init__(self, state: ServerState, body: dict[str, Any]) -> None:
        self._app = build_app(state)
        self._requests = [
            {"type": "http.request", "body": msgspec.json.encode(body), "more_body": False}
        ]
        self.gone = asyncio.Event()
        self.received: list[Any] = []

    async def run(self) -> None:
        scope = {
            "type": "http",
            "method": "POST",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
            "http_version": "1.1",
            "scheme": "http",
            "server": ("test", 80),
            "client": ("test", 1),
        }
        await self._app(scope, self._receive, self._send)

    async def _receive(self) -> Any:
        if self._requests:
            return self._requests.pop()
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.received.append(message)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_leaves_ends_its_requests(state: ServerState, is_stream: bool) -> None:
    body = {**ENDLESS, **SHOWN, "prompt": [[5, 6], [7, 8]], "stream": is_stream}
    leaving = LeavingClient(state, body)
    running = asyncio.create_task(leaving.run())
    await until(lambda: len(state.running) == 1 and (not is_stream or len(leaving.received) > 3))
    leaving.gone.set()
    await running
    assert await idle(state)


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_leaves_before_its_answer_begins_is_answered_and_counted_as_none(
    is_stream: bool,
) -> None:
    engine = AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_SILENT_CORE)
    state = ready_state(engine)
    leaving = LeavingClient(state, {"prompt": [5], "stream": is_stream})
    running = asyncio.create_task(leaving.run())
    await until(lambda: engine.get_num_unfinished_requests() == 1)
    leaving.gone.set()
    await running
    assert leaving.received == []
    (line,) = [
        line
        for line in (await state.watch.exposition()).decode().splitlines()
        if line.startswith("quire:http_responses_total")
    ]
    assert 'status="499"' in line and line.endswith(" 1.0")
    engine.shutdown()


async def test_many_prompts_are_checked_once_and_leave_others_their_turns(
    state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_checks = 0
    plain = SamplingParams.verify

    def verify(self: SamplingParams) -> None:
        nonlocal num_checks
        num_checks += 1
        plain(self)

    monkeypatch.setattr(SamplingParams, "verify", verify)
    leaving = LeavingClient(state, {**ENDLESS, "prompt": [[5, 6]] * 50, "logit_bias": {"5": 1}})
    running = asyncio.create_task(leaving.run())
    engine = state.require_engine()
    seen = set()

    async def look_each_turn() -> None:
        while (num_unfinished := engine.get_num_unfinished_requests()) < 50:
            seen.add(num_unfinished)
            await asyncio.sleep(0)

    await asyncio.wait_for(look_each_turn(), DEADLINE_S)
    assert len(seen) > 25  # the prompts were not taken all in one turn
    assert num_checks < 5
    leaving.gone.set()
    await running
    assert await idle(state)


@pytest.mark.parametrize(("is_stream", "name"), [(False, "a"), (True, "a"), (True, "a/b")])
async def test_a_request_can_be_cancelled_by_its_id(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool, name: str
) -> None:
    call = client.post(PATH, json={**ENDLESS, "request_id": name, "stream": is_stream})
    answer = asyncio.create_task(call)
    await until(lambda: state.running.get(name) is not None)
    (shown,) = (await client.get("/v1/requests")).json()["data"]
    assert (shown["endpoint"], shown["prompt_tokens"]) == (PATH, 2)
    assert (await client.post(f"/v1/requests/cmpl-{name}/cancel")).status_code == 200
    response = await answer
    last = events_of(response.text)[-2] if is_stream else response.json()
    assert last["choices"][0]["finish_reason"] == "abort"
    assert await idle(state)


async def test_a_cancelled_answer_has_the_tokens_that_it_was_computed(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    body = {**ENDLESS, **SHOWN, "prompt": [[5, 6], [7]], "n": 2, "request_id": "a"}
    answer = asyncio.create_task(client.post(PATH, json=body))
    await until(lambda: state.running.get("a") is not None)
    engine = state.require_engine()
    await until_core(engine, lambda stats: stats.num_steps >= 5)
    assert (await client.post("/v1/requests/a/cancel")).status_code == 200
    data = (await answer).json()
    token_ids = [one["token_ids"] for one in data["choices"]]
    repeated = [[5, 6], [6, 5], [7], [7]]
    for tokens, prompt in zip(token_ids, repeated, strict=True):
        assert tokens == (prompt * len(tokens))[: len(tokens)] != []
    assert {one["finish_reason"] for one in data["choices"]} == {"abort"}
    assert data["usage"]["completion_tokens"] == sum(len(tokens) for tokens in token_ids)
    assert await idle(state)


async def test_a_client_that_leaves_is_counted_with_what_was_computed(engine: AsyncLLM) -> None:
    state = ready_state(engine)
    state.watch.engine_ready(engine, "m")
    before = (await engine.stats()).num_generation_tokens
    body = {**ENDLESS, "max_tokens": 1500, "ignore_eos": True}
    leaving = LeavingClient(state, body)
    running = asyncio.create_task(leaving.run())
    await until_core(engine, lambda stats: stats.num_generation_tokens >= before + 5)
    leaving.gone.set()
    await asyncio.wait_for(running, 20)
    assert await idle(state) and leaving.received == []
    text = (await state.watch.exposition()).decode()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    found = {line.partition("{")[0]: float(line.split()[-1]) for line in lines}
    computed = (await engine.stats()).num_generation_tokens - before
    assert 5 <= found["quire:request_generation_tokens_sum"] == computed < 1500
    for name in ("time_to_first_token", "request_queue_time", "request_inference_time"):
        assert found[f"quire:{name}_seconds_count"] == 1, name
    assert found["quire:num_aborted_requests_total"] == 1


async def test_a_client_that_leaves_is_not_waited_for_long_where_the_core_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quire.server.generation._LAST_WORDS_S", 0.05)
    engine = AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_SILENT_CORE)
    state = ready_state(engine)
    leaving = LeavingClient(state, {"prompt": [5], "request_id": "a"})
    running = asyncio.create_task(leaving.run())
    await until(lambda: engine.get_num_unfinished_requests() == 1)
    core = engine._client
    send, held = core.send, []
    core.send = held.append  # type: ignore[method-assign]  # it never hears of it
    state.running.cancel("a")
    await until(lambda: len(held) == 1)
    assert engine.get_num_unfinished_requests() == 1
    leaving.gone.set()
    await running
    assert engine.get_num_unfinished_requests() == 0 and len(state.running) == 0
    core.send = send  # type: ignore[method-assign]
    engine.shutdown()


async def test_a_shutdown_that_breaks_an_answer_off_is_503_and_a_stream_says_abort(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    bodies = [{**ENDLESS, "request_id": "a"}, {**ENDLESS, "request_id": "b", "stream": True}]
    answers = [asyncio.create_task(client.post(PATH, json=body)) for body in bodies]
    await until(lambda: len(state.running) == 2)
    state.enter(Phase.DRAINING, "the server is shutting down")
    for request in state.running:
        request.drop()
    whole, stream = await asyncio.gather(*answers)
    assert whole.status_code == 503 and "Retry-After" in whole.headers
    assert events_of(stream.text)[-2]["choices"][0]["finish_reason"] == "abort"


async def test_an_id_is_taken_until_its_request_has_been_aborted(
    client: httpx.AsyncClient, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = state.require_engine()
    abort, was_taken = engine.abort, []

    async def slowly(request_ids: list[str], **options: bool) -> None:
        await asyncio.sleep(0)
        was_taken.append(state.running.get("a") is not None)
        await abort(request_ids, **options)

    monkeypatch.setattr(engine, "abort", slowly)
    body = {**ENDLESS, "request_id": "a", "stream": True}
    answer = asyncio.create_task(client.post(PATH, json=body))
    generation = await running_generation(state)
    generation.cancel()
    await generation.close()  # as at an end of its own in the same moment
    assert was_taken and all(was_taken)
    assert state.running.get("a") is None
    await answer


async def running_generation(state: ServerState) -> Generation:
    """The one that runs, once it has some output."""
    await until(lambda: any(one.num_output_tokens > 3 for one in state.running))
    (running,) = state.running
    generation = running.cancel.__self__  # type: ignore[attr-defined]
    assert isinstance(generation, Generation)
    return generation


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_time_limit_keeps_what_there_is(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool
) -> None:
    body = {**ENDLESS, "timeout_s": 1000, "stream": is_stream, **SHOWN}
    answer = asyncio.create_task(client.post(PATH, json=body))
    (await running_generation(state)).pass_limit("timeout_s", 1000)
    response = await answer
    assert response.status_code == 200
    chunks = events_of(response.text)[:-1] if is_stream else [response.json()]
    last = chunks[-1]["choices"][0]
    assert (last["finish_reason"], last["stop_reason"]) == ("length", "timeout")
    token_ids = [i for chunk in chunks for i in chunk["choices"][0]["token_ids"]]
    assert token_ids == ([5, 6] * len(token_ids))[: len(token_ids)] != []
    assert await idle(state)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("limit", ["timeout_s", "queue_timeout_s", "--request-timeout"])
async def test_a_time_limit_before_the_first_token_is_408(limit: str, is_stream: bool) -> None:
    engine = AsyncLLM(fake_config(), multiprocess_mode=False, build=BUILD_SILENT_CORE)
    is_server = limit.startswith("--")
    state = ready_state(engine, request_timeout=0.01 if is_server else None)
    body = {"prompt": [5], "stream": is_stream, **({} if is_server else {limit: 0.01})}
    async with in_process_client(state) as client:
        response = await client.post(PATH, json=body)
    assert response.status_code == 408
    error = response.json()["error"]
    assert error["type"] == "RequestTimeoutError"
    assert f"{limit}=0.01 seconds" in error["message"]
    assert await idle(state)
    engine.shutdown()


async def test_a_request_that_runs_is_not_in_the_queue(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    answer = asyncio.create_task(client.post(PATH, json={**ENDLESS, "queue_timeout_s": 1000}))
    generation = await running_generation(state)
    generation.pass_limit("queue_timeout_s", 1000)
    num_tokens = generation.usage.completion_tokens
    await until(lambda: generation.usage.completion_tokens > num_tokens + 3)
    generation.cancel()
    assert (await answer).json()["choices"][0]["finish_reason"] == "abort"
    ranked = {"prompt": [5], "best_of": 2, "queue_timeout_s": 1}
    assert (await client.post(PATH, json=ranked)).status_code == 400


async def test_more_than_the_queue_holds_is_429(fake_engine: AsyncLLM) -> None:
    state = ready_state(fake_engine, max_queued_requests=1)
    async with in_process_client(state) as client:
        first = asyncio.create_task(client.post(PATH, json={**ENDLESS, "request_id": "a"}))
        await until(lambda: len(state.running) == 1)
        second = await client.post(PATH, json=ENDLESS)
        assert second.status_code == 429
        assert second.headers["retry-after"] == "1"
        assert second.json()["error"]["type"] == "RateLimitError"
        assert "1 (--max-queued-requests)" in second.json()["error"]["message"]
        await client.post("/v1/requests/a/cancel")
        await first
        third = await client.post(PATH, json={"prompt": [5], "max_tokens": 1})
    assert third.status_code == 200


async def test_a_full_queue_reads_no_body(fake_engine: AsyncLLM) -> None:
    num_read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal num_read
        num_read += 1
        yield b"{}"

    state = ready_state(fake_engine, max_queued_requests=0)
    async with in_process_client(state) as client:
        for path in GENERATING:
            kind = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
            answer = await client.post(path, content=body(), headers=kind)
            assert answer.status_code == 429
    assert num_read == 0


async def test_what_waits_to_be_read_is_in_the_queue(
    fake_engine: AsyncLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = ready_state(fake_engine, max_queued_requests=1)
    may_go_on = threading.Event()
    monkeypatch.setattr(intake, "judge", lambda *_: [] if may_go_on.wait(20) else ["late"])
    async with in_process_client(state) as client:
        body = {"prompt": [5], "max_tokens": 1, "user": "x" * IN_THREAD_BYTES}
        first = asyncio.create_task(client.post(PATH, json=body))
        await until(lambda: len(state.running) == 1)
        assert (await client.post(PATH, json={"prompt": [5]})).status_code == 429
        may_go_on.set()
        assert (await first).status_code == 200
    assert len(state.running) == 0


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_wrong_value_of_our_own_is_500_and_logged(
    client: httpx.AsyncClient,
    state: ServerState,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_stream: bool,
) -> None:
    def wrong(*_: object) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr(Usage, "as_dict", wrong)
    monkeypatch.setattr(completions_stream, "_plain", wrong)
    monkeypatch.setattr(completions_stream, "_full", wrong)
    response = await client.post(PATH, json={"prompt": [5], "max_tokens": 2, "stream": is_stream})
    assert response.status_code == 500
    message = response.json()["error"]["message"]
    assert message == "ValueError: the server failed; see its log for details."
    assert "a bug" in caplog.text
    assert await idle(state)


async def test_one_id_may_run_twice(client: httpx.AsyncClient, state: ServerState) -> None:
    header = {"X-Request-Id": "same"}
    calls = [asyncio.create_task(client.post(PATH, json=ENDLESS, headers=header)) for _ in range(2)]
    await until(lambda: len(state.running) == 2)
    for running in state.running:
        running.cancel()
    answers = await asyncio.gather(*calls)
    ids = [one.json()["id"] for one in answers]
    assert ids[0] == "cmpl-same" and ids[1].startswith("cmpl-same-")
    assert [one.headers["x-request-id"] for one in answers] == ["same"] * 2


async def test_no_request_is_cancelled_by_the_id_of_another(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    def ask(**headers: str) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(client.post(PATH, json=ENDLESS, headers=headers))

    first = ask(**{"X-Request-Id": "same"})
    await until(lambda: len(state.running) == 1)
    second = ask(**{"X-Request-Id": "same"})
    await until(lambda: len(state.running) == 2)
    own_id = next(one.request_id for one in state.running if one.request_id != "same")
    refused = await client.post("/v1/requests/same/cancel")
    assert refused.status_code == 409 and own_id in refused.json()["error"]["message"]
    assert (await client.post(f"/v1/requests/cmpl-{own_id}/cancel")).json()["id"] == own_id
    assert (await second).json()["id"] == f"cmpl-{own_id}"
    assert not first.done()
    assert (await client.post("/v1/requests/cmpl-same/cancel")).json()["id"] == "same"
    assert (await first).json()["id"] == "cmpl-same"
    assert (await client.post("/v1/requests/same/cancel")).status_code == 404


async def test_ids_of_several_prompts_are_nobody_elses(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    many = {**ENDLESS, "prompt": [[5], [6]], "request_id": "x"}
    calls = [asyncio.create_task(client.post(PATH, json=many))]
    await until(lambda: len(state.running) == 1)
    for name in ("x-0", "x-1"):
        one = {**ENDLESS, "request_id": name}
        calls.append(asyncio.create_task(client.post(PATH, json=one)))
    await until(lambda: len(state.running) == 3)
    for name in ("x-1", "x-0", "x"):
        assert (await client.post(f"/v1/requests/{name}/cancel")).json()["id"] == name
    assert [one.status_code for one in await asyncio.gather(*calls)] == [200] * 3


@pytest.mark.parametrize("prefix", ["", "cmpl-", "chatcmpl-", "resp_", "msg_"])
async def test_a_request_goes_by_the_id_of_its_answer(
    client: httpx.AsyncClient, state: ServerState, prefix: str
) -> None:
    answer = asyncio.create_task(client.post(PATH, json={**ENDLESS, "request_id": "a-b"}))
    await until(lambda: len(state.running) == 1)
    for wrong in ("b", "x-a-b", "cmpl-b"):
        assert (await client.post(f"/v1/requests/{wrong}/cancel")).status_code == 404
    assert (await client.post(f"/v1/requests/{prefix}a-b/cancel")).status_code == 200
    assert (await answer).headers["x-request-id"] == "a-b"


async def test_a_request_can_be_cancelled_before_it_has_begun(
    client: httpx.AsyncClient, state: ServerState, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_reading, may_go_on = threading.Event(), threading.Event()

    def slowly(*_: object) -> list[str]:
        is_reading.set()
        return [] if may_go_on.wait(20) else ["late"]

    monkeypatch.setattr(intake, "judge", slowly)
    body = {**ENDLESS, "request_id": "a", "user": "x" * IN_THREAD_BYTES}
    answer = asyncio.create_task(client.post(PATH, json=body))
    await until(is_reading.is_set)
    assert (await client.get("/v1/requests")).json()["data"][0]["id"] == "a"
    assert (await client.post("/v1/requests/a/cancel")).status_code == 200
    may_go_on.set()
    assert (await answer).json()["choices"][0]["finish_reason"] == "abort"
    assert await idle(state)


async def test_a_prompt_that_fails_ends_its_siblings(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    body = {"prompt": [[5, 6], [FAIL_ALONE]], "max_tokens": MOST}
    response = await client.post(PATH, json=body)
    assert response.status_code == 500
    assert "this request failed" in response.json()["error"]["message"]
    assert await idle(state)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("n", [1, 2])
async def test_what_the_engine_refuses_is_the_requests_own_fault(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool, n: int
) -> None:
    response = await client.post(PATH, json={"prompt": [REFUSE], "stream": is_stream, "n": n})
    assert response.status_code == 400
    assert "refused by the core" in response.json()["error"]["message"]
    assert await idle(state)


async def test_a_wrong_prompt_ends_those_before_it(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    response = await client.post(PATH, json={**ENDLESS, "prompt": [[5, 6], [1000]]})
    assert response.status_code == 400
    assert await idle(state)


async def test_a_stream_that_fails_later_ends_with_an_error_event(
    client: httpx.AsyncClient, state: ServerState
) -> None:
    answer = asyncio.create_task(client.post(PATH, json={**ENDLESS, **SHOWN, "stream": True}))
    await until(lambda: any(one.num_output_tokens > 3 for one in state.running))
    failing = await client.post(PATH, json={"prompt": [FAIL_STEP]})
    assert failing.status_code == 500
    response = await answer
    assert response.status_code == 200
    *_, error, done = events_of(response.text)
    assert done == "[DONE]"
    assert error["error"]["code"] == 500
    assert "on fire" in error["error"]["message"]
    assert len(state.running) == 0


async def test_a_stream_that_fails_at_once_has_a_status(client: httpx.AsyncClient) -> None:
    response = await client.post(PATH, json={"prompt": [FAIL_ALONE], "stream": True})
    assert response.status_code == 500
    assert "this request failed" in response.json()["error"]["message"]


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.DRAINING])
async def test_no_request_is_taken_before_or_after_the_servers_time(
    client: httpx.AsyncClient, state: ServerState, phase: Phase
) -> None:
    state.enter(phase, "not now")
    response = await client.post(PATH, json={"prompt": [5]})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0


async def test_a_priority_header_is_heeded(client: httpx.AsyncClient) -> None:
    for header in ("X-Vllm-Priority", "X-Priority"):
        response = await client.post(PATH, json={"prompt": [5]}, headers={header: "4"})
        assert response.status_code == 400  # the policy is fcfs
        assert "priority=4" in response.json()["error"]["message"]
    for value in ("high", "9" * 30, "1_0", "", str(2**63), str(-(2**63) - 1)):
        wrong = await client.post(PATH, json={"prompt": [5]}, headers={"X-Priority": value})
        assert f"must be an integer of 64 bits, got {value!r}" in wrong.json()["error"]["message"]
    for number in (2**63 - 1, -(2**63)):
        header = {"X-Priority": f"{number:+025}"}
        response = await client.post(PATH, json={"prompt": [5]}, headers=header)
        assert f"priority={number} has no effect" in response.json()["error"]["message"]


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_wrong_request_id_leaves_nothing_behind(
    client: httpx.AsyncClient, state: ServerState, is_stream: bool
) -> None:
    for wrong in ("caf\u00e9", "a\nb", "x" * 129):
        body = {"prompt": [5], "request_id": wrong, "stream": is_stream}
        response = await client.post(PATH, json=body)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "request_id"
    assert len(state.running) == 0
