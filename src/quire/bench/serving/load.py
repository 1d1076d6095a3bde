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

_CHECK_INTERVAL_S = 0.5
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

    async def wait_until_ready(self, request: LoadRequest, timeout_s: float) -> None:
        """Wait until a short request is answered; ``ServerError`` after ``timeout_s``, or at once
        for an error that waiting does not cure."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                await self._check(request)
                return
            except ServerError as error:
                passes = error.status in (None, 429, 503)
                if not passes or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(_CHECK_INTERVAL_S)

    async def _check(self, request: LoadRequest) -> None:
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
    ) -> list[Measured]:
        """One `Measured` for each request; ``due`` are seconds from now."""
        allow_connections(min(len(requests), max_concurrency or len(requests)))
        bodies = [json.dumps(self._backend.body(one, self._fields)).encode() for one in requests]
        limit = asyncio.Semaphore(max_concurrency or len(requests))

        async def one(index: int) -> Measured:
            async with limit:
                measured = await self._send(bodies[index], index, requests[index])
            on_end()
            return measured

        began = time.perf_counter()
        tasks = []
        for index, seconds in enumerate(due):
            delay = began + seconds - time.perf_counter()
            if delay > 0:
                await asyncio.sleep(delay)
            tasks.append(asyncio.create_task(one(index)))
        return list(await asyncio.gather(*tasks))

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
