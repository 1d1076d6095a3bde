"""Watch: what observes one server's work: metrics, the page, traces, logs.

Made with the server, and told when there is an engine. Everything is counted at the engine, so that
endpoints need not count.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from quire.engine.async_engine import AsyncLLM
from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import Observers, RequestEnd, RequestObserver
from quire.metrics.metrics import Metrics
from quire.metrics.request_log import RequestLog
from quire.metrics.stats_poll import Poll
from quire.metrics.throughput import ThroughputMeter, log_throughput
from quire.metrics.tracing import Tracer, open_tracer
from quire.step_output import EngineStats

if TYPE_CHECKING:
    from quire.server.args import ServerArgs

LOG_INTERVAL_S = 10.0
_NUM_RECENT = 20  # requests whose latencies the page shows
_RECENT_S = 60.0  # older requests say nothing about now


class RecentLatencies:
    """A `RequestObserver` that keeps the times to first token of the last requests."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: deque[tuple[float, float]] = deque(maxlen=_NUM_RECENT)  # when, and the ttft

    def request_started(self, request: ProcessedRequest) -> None:
        pass

    def request_ended(self, end: RequestEnd) -> None:
        if end.timing.first_token_ts:
            self._ends.append((self._clock(), end.timing.first_token_latency))

    @property
    def median_ttft(self) -> float | None:
        """Seconds; None when no request has ended lately."""
        oldest = self._clock() - _RECENT_S
        ttfts = [ttft for when, ttft in tuple(self._ends) if when >= oldest]
        return statistics.median(ttfts) if ttfts else None


class Watch:
    """The observers of one server, or of one of several processes that share an engine."""

    def __init__(self, args: ServerArgs, *, shares_engine: bool = False) -> None:
        self._args = args
        self._shares_engine = shares_engine
        self.metrics = Metrics(args.metrics_prefix)
        self.latencies = RecentLatencies()
        self._tracer: Tracer | None = None
        if args.otlp_traces_endpoint is not None:
            self._tracer = open_tracer(args.otlp_traces_endpoint)
        self._meter = ThroughputMeter()
        self._engine: AsyncLLM | None = None
        self._model_name: str | None = None
        self._logging: asyncio.Task[None] | None = None
        self._timing: asyncio.Task[None] | None = None
        self.stats = Poll[EngineStats](_nothing, EngineStats())
        self.blocks = Poll[bytes](_no_blocks, b"")

    def engine_ready(self, engine: AsyncLLM, model_name: str) -> None:
        """Watch this engine from now on; called in the server's event loop."""
        self._engine, self._model_name = engine, model_name
        self._meter = ThroughputMeter()
        self.stats = Poll(engine.stats, EngineStats())
        self.blocks = Poll(engine.block_map, b"")
        engine.front.observe(Observers(self._observers(engine)))
        if self._timing is None:
            self._timing = asyncio.create_task(self.metrics.loop_lag.watch())
        if self._logging is not None:
            self._logging.cancel()
        self._logging = asyncio.create_task(self._look_now_and_then())

    async def exposition(self) -> bytes:
        """The answer to a scrape."""
        stats = await self._scraped_stats()
        return self.metrics.text(self._model_name, self._engine, stats, self._meter.rate)

    def close(self) -> None:
        """Send the traces that are left."""
        if self._tracer is not None:
            self._tracer.close()

    async def _scraped_stats(self) -> EngineStats | None:
        """The stats for a scrape. None is a harmless gap, while falling counts look like a restart:
        of several processes, only a new answer is surely not older than another's last one."""
        if self._shares_engine:
            return await self.stats.get_new()
        poll = self.stats
        stats = await poll.get(0.0)
        return stats if poll.has_answer else None

    def _observers(self, engine: AsyncLLM) -> list[RequestObserver]:
        assert self._model_name is not None
        max_model_len = engine.model_config.max_model_len
        observers: list[RequestObserver] = [
            self.metrics.requests_of(self._model_name, max_model_len),
            self.latencies,
        ]
        if self._tracer is not None:
            observers.append(self._tracer)
        if self._args.enable_log_requests:
            observers.append(RequestLog(self._args.max_log_len))
        return observers

    async def _look_now_and_then(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(LOG_INTERVAL_S)

    async def look(self) -> None:
        """Take the rates since the last time, and log them."""
        poll = self.stats
        stats = await poll.get(0.0)
        if not poll.has_answer:
            return
        rate = self._meter.look(stats, poll.time)
        if rate is not None and not self._args.disable_log_stats:
            log_throughput(stats, rate)


async def _nothing() -> EngineStats:
    return EngineStats()


async def _no_blocks() -> bytes:
    return b""
