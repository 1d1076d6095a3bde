"""Sends the requests of a measurement: when each is due, and no more at once than allowed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from quire.bench.serving.measure import Measured, StreamWatch
from quire.bench.serving.requests import Backend, LoadRequest
from quire.clients.address import ServerError, refusal
from quire.clients.http import HTTPClient
from quire.server.open_files import allow_connections

_NUM_PROBE_TOKENS = 2
_OK = 200


class Load:
    """Sends the requests of a measurement to one server."""

    def __init__(
        self,
        client: HTTPClient,
        backend: Backend,
        *,
        endpoint: str,
        fields: Mapping[str, Any],
        request_id_prefix: str = "",
    ) -> None:
        """``fields`` are in every request besides the prompt."""
        self._client = client
        self._backend = backend
        self._endpoint = endpoint
        self._fields = dict(fields)
        self._prefix = request_id_prefix

    async def check(self, request: LoadRequest) -> None:
        """Send a short request; `ServerError` without a good answer."""
        probe = request.probe(_NUM_PROBE_TOKENS)
        body = {**self._backend.body(probe, self._fields), "stream": False}
        del body["stream_options"]
        reply = await self._client.post(self._endpoint, json.dumps(body).encode())
        if reply.status != _OK:
            raise refusal(reply.status, reply.body)

    async def run(
        self,
        requests: Sequence[LoadRequest],
        due: Sequence[float],
        *,
        max_concurrency: int | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> tuple[list[Measured], float]:
        """One `Measured` for each request, and the seconds from the first to the end of the last.
        ``due`` are seconds from the start."""
        allow_connections(min(len(requests), max_concurrency or len(requests)))
        bodies = [json.dumps(self._backend.body(one, self._fields)).encode() for one in requests]
        limit = asyncio.Semaphore(max_concurrency or len(requests))

        async def one(index: int) -> Measured:
            async with limit:
                answer = await self._send(bodies[index], index, requests[index])
            on_end()
            return answer

        began = time.perf_counter()
        tasks = []
        for index, seconds in enumerate(due):
            delay = began + seconds - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(one(index)))
        measured = await asyncio.gather(*tasks)
        return measured, time.perf_counter() - began

    async def _send(self, body: bytes, index: int, request: LoadRequest) -> Measured:
        measured = Measured(
            started=time.perf_counter(), num_prompt_tokens=request.num_prompt_tokens
        )
        watch = StreamWatch(measured)
        headers = {"x-request-id": f"{self._prefix}{index}"} if self._prefix else {}
        try:
            reply = await self._client.post(
                self._endpoint, body, headers=headers, on_body=watch.feed
            )
        except (ServerError, msgspec.DecodeError) as error:
            measured.error = str(error)
            return measured
        if reply.status != _OK:
            measured.error = str(refusal(reply.status, reply.body))
            return measured
        watch.end()
        return measured
