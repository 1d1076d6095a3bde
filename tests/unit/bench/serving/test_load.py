from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from quire.bench.serving.load import Load
from quire.bench.serving.requests import Backend, LoadRequest
from quire.clients.address import Address
from quire.clients.http import HTTPClient, OnBody, Reply
from tests.fakes.sse_server import events

ENCODING_S, ANSWER_S = 100.0, 1.0
ONE = LoadRequest(prompt=[1, 2], num_prompt_tokens=2, num_output_tokens=1)


class Clock:
    """Time passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Client(HTTPClient):
    """Answers each request with one event, one after the other."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(Address.parse("http://host:1"))
        self._clock = clock

    async def post(
        self,
        path: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        on_body: OnBody | None = None,
    ) -> Reply:
        assert on_body is not None
        self._clock.now += ANSWER_S
        for piece in events({"choices": [{"text": "x", "finish_reason": None}]}, "[DONE]"):
            on_body(piece)
        return Reply(status=200)


async def test_the_duration_begins_with_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("time.perf_counter", clock)

    def encoded(request: LoadRequest) -> dict[str, Any]:
        clock.now += ENCODING_S
        return {"prompt": request.prompt}

    backend = Backend(endpoint="/v1/x", prompt_fields=encoded)
    load = Load(Client(clock), backend, endpoint="/v1/x", fields={})
    measured, duration = await load.run([ONE] * 3, [0.0] * 3)
    assert duration == 3 * ANSWER_S
    assert [one.ttft for one in measured] == [ANSWER_S] * 3
    assert [one.started for one in measured] == [3 * ENCODING_S + n * ANSWER_S for n in range(3)]
