from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from quire.batch_files.lines import BadLine, BatchRequest
from quire.batch_files.runner import Record, Runner
from quire.batch_files.targets import Answer
from quire.clients.address import CertificateError, ServerError
from quire.errors import EngineDeadError

FULL = Answer(status=429, headers={"retry-after": "7"}, body=b'{"error": {"message": "full"}}')


def refused(status: int) -> Answer:
    return Answer(status=status, headers={}, body=b'{"error": {"message": "not now"}}')


def good(body: Mapping[str, Any] | None = None) -> Answer:
    content = {"usage": {"prompt_tokens": 3, "completion_tokens": 2}, "asked": body}
    return Answer(status=200, headers={"x-request-id": "id-1"}, body=json.dumps(content).encode())


class FakeTarget:
    """Answers each custom number with what stands ready for it, then well; exceptions are
    raised."""

    def __init__(self, ready: dict[int, list[Answer | Exception]] | None = None) -> None:
        self._ready = ready or {}
        self.asked: list[int] = []
        self.num_running = self.most_running = 0

    async def ask(self, path: str, body: Mapping[str, Any]) -> Answer:
        number = body["n"]
        self.asked.append(number)
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        for _ in range(10 - number):  # later ones are faster
            await asyncio.sleep(0)
        self.num_running -= 1
        answers = self._ready.get(number)
        answer = answers.pop(0) if answers else good(body)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def default_model(self) -> str:
        return "first"


class Sleeps:
    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


def request(number: int, **body: Any) -> BatchRequest:
    return BatchRequest(
        number=number, custom_id=f"r{number}", path="/v1/x", body={"n": number, **body}
    )


def runner_of(target: FakeTarget, **options: Any) -> tuple[Runner, list[Record], Sleeps]:
    records: list[Record] = []
    sleeps = Sleeps()
    options = {"max_inflight": 4, **options}
    return Runner(target, records.append, sleep=sleeps, **options), records, sleeps


async def test_every_line_is_answered_once_and_no_more_at_once_than_allowed() -> None:
    target = FakeTarget()
    runner, records, _ = runner_of(target, max_inflight=3)
    summary = await runner.run([request(n) for n in range(9)])
    assert sorted(target.asked) == list(range(9))
    assert target.most_running == 3
    assert sorted(one["custom_id"] for one in records) == [f"r{n}" for n in range(9)]
    assert (summary.num_ok, summary.num_failed) == (9, 0)
    assert (summary.num_prompt_tokens, summary.num_output_tokens) == (27, 18)


async def test_records_come_in_order_if_that_is_wanted() -> None:
    lines = [request(n) for n in range(9)]
    free, as_finished, _ = runner_of(FakeTarget())
    await free.run(lines)
    bound, in_order, _ = runner_of(FakeTarget(), ordered=True)
    await bound.run(lines)
    wanted = [f"r{n}" for n in range(9)]
    assert [one["custom_id"] for one in in_order] == wanted
    assert [one["custom_id"] for one in as_finished] != wanted


async def test_little_is_held_back_for_a_slow_line() -> None:
    may_answer = asyncio.Event()

    class SlowAtFirst(FakeTarget):
        async def ask(self, path: str, body: Mapping[str, Any]) -> Answer:
            if body["n"] == 0:
                await may_answer.wait()
            return await super().ask(path, body)

    target = SlowAtFirst()
    runner, records, _ = runner_of(target, max_inflight=2, ordered=True)
    running = asyncio.create_task(runner.run([request(n) for n in range(50)]))
    for _ in range(2000):
        await asyncio.sleep(0)
    assert records == [] and target.asked == list(range(1, 8))
    may_answer.set()
    await asyncio.wait_for(running, 20)
    assert [one["custom_id"] for one in records] == [f"r{n}" for n in range(50)]


async def test_a_record_holds_the_answer() -> None:
    runner, records, _ = runner_of(FakeTarget())
    await runner.run([request(1, model="mine"), request(2)], model="other")
    (first, second) = sorted(records, key=lambda one: str(one["custom_id"]))
    assert first["response"]["status_code"] == 200
    assert first["response"]["request_id"] == "id-1"
    assert first["response"]["body"]["asked"]["model"] == "mine"
    assert second["response"]["body"]["asked"]["model"] == "other"
    assert first["error"] is None and first["id"] != second["id"]


async def test_a_bad_line_and_a_refused_one_stop_nothing() -> None:
    refusal = Answer(status=404, headers={}, body=b"no such page")
    runner, records, _ = runner_of(FakeTarget({2: [refusal]}), ordered=True)
    bad = BadLine(number=1, custom_id=None, message="line 1 is not JSON")
    summary = await runner.run([bad, request(2), request(3)])
    assert records[0]["custom_id"] is None and records[0]["response"] is None
    assert records[0]["error"] == {
        "code": "invalid_line",
        "message": "line 1 is not JSON",
        "line": 1,
    }
    assert records[1]["response"]["status_code"] == 404
    assert records[1]["response"]["body"] == "no such page"
    assert (summary.num_ok, summary.num_failed) == (1, 2)


async def test_a_server_that_is_full_or_away_is_asked_again() -> None:
    gone = ServerError("connection refused")
    runner, records, sleeps = runner_of(FakeTarget({1: [FULL, gone, gone]}))
    summary = await runner.run([request(1)])
    assert summary.num_ok == 1 and len(records) == 1
    assert sleeps.seconds == [7.0, 1.0, 2.0]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_tried_again(status: int) -> None:
    runner, records, sleeps = runner_of(FakeTarget({1: [refused(status)] * 3}))
    await runner.run([request(1)])
    assert [one["response"]["status_code"] for one in records] == [200]
    assert sleeps.seconds == [0.5, 1.0, 2.0]


@pytest.mark.parametrize("status", [400, 404, 501])
async def test_what_will_not_be_better_is_recorded_at_once(status: int) -> None:
    runner, records, sleeps = runner_of(FakeTarget({1: [refused(status)]}))
    await runner.run([request(1)])
    assert [one["response"]["status_code"] for one in records] == [status]
    assert sleeps.seconds == []


@pytest.mark.parametrize("status", [408, 500])
async def test_a_line_that_breaks_the_server_each_time_stops_nothing(status: int) -> None:
    restart = [refused(status), *[refused(503)] * 7]  # one more absence would end the run
    target = FakeTarget({1: restart * 4})
    runner, records, _ = runner_of(target, max_inflight=1)
    summary = await runner.run([request(n) for n in range(3)])
    assert [one["response"]["status_code"] for one in records] == [200, status, 200]
    assert records[1]["response"]["body"] == {"error": {"message": "not now"}}
    assert target.asked.count(1) == 3 * 8 + 1
    assert (summary.num_ok, summary.num_failed) == (2, 1)


@pytest.mark.parametrize("status", [502, 504])
async def test_a_gateways_refusal_is_one_lines_if_others_are_answered_meanwhile(
    status: int,
) -> None:
    target = FakeTarget({0: [refused(status)] * 8})
    runner, records, _ = runner_of(target, max_inflight=2)
    await runner.run([request(n) for n in range(40)])
    found = {one["custom_id"]: one["response"]["status_code"] for one in records}
    assert found == {"r0": status, **{f"r{n}": 200 for n in range(1, 40)}}
    assert target.asked.count(0) == 8


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([EngineDeadError("CUDA error")], "CUDA error"),
        ([refused(502)] * 8, "502: not now"),
        ([refused(504)] * 8, "504: not now"),
        ([FULL] * 8, "429: full"),
        ([ServerError("gone")] * 8, "gone"),
    ],
)
async def test_what_will_not_pass_ends_the_run_and_leaves_its_line_open(
    answers: list[Answer | Exception], message: str
) -> None:
    target = FakeTarget({5: list(answers)})
    runner, records, _ = runner_of(target, max_inflight=1)
    with pytest.raises((ServerError, EngineDeadError), match=message):
        await runner.run([request(n) for n in range(8)])
    assert [one["custom_id"] for one in records] == [f"r{n}" for n in range(5)]


async def test_why_a_line_is_asked_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    away = ServerError("http://host:1 cannot be reached: gone")
    answers = [away, away, FULL, refused(500), FULL]
    runner, _, _ = runner_of(FakeTarget({0: list(answers), 1: list(answers)}))
    await runner.run([request(n) for n in range(3)])
    assert [record.getMessage() for record in caplog.records] == [
        "http://host:1 cannot be reached: gone; tried again, up to 8 times in a row",
        "the server answered 429: full; tried again, up to 8 times in a row",
        "the server answered 500: not now; tried again, up to 4 times in a row",
    ]


async def test_a_certificate_that_is_not_trusted_ends_the_run_at_once() -> None:
    target = FakeTarget({0: [CertificateError("not trusted")] * 8})
    runner, _, sleeps = runner_of(target, max_inflight=1)
    with pytest.raises(CertificateError, match="not trusted"):
        await runner.run([request(0)])
    assert sleeps.seconds == []


async def test_what_is_too_deep_for_json_is_an_error_of_its_line_or_text() -> None:
    deep = Answer(status=200, headers={}, body=b"[" * 100_000)
    runner, records, _ = runner_of(FakeTarget({0: [RecursionError()], 1: [deep]}))
    await runner.run([request(n) for n in range(3)])
    by_id = {one["custom_id"]: one for one in records}
    assert "line 0 nests lists or objects too deeply" in by_id["r0"]["error"]["message"]
    assert by_id["r1"]["response"]["body"].startswith("[[")
    assert by_id["r2"]["response"]["status_code"] == 200
