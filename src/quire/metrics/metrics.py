"""Metrics: all that one server process measures, and its answer to a scrape."""

from __future__ import annotations

import time

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric

from quire.engine.async_engine import AsyncLLM
from quire.metrics import multiprocess
from quire.metrics.engine_metrics import engine_families, server_families, start_families
from quire.metrics.exposition import expose
from quire.metrics.http_metrics import HTTPMetrics, derived_http_families
from quire.metrics.loop_lag import LoopLag
from quire.metrics.request_metrics import RequestMetrics
from quire.metrics.throughput import Throughput
from quire.step_output import EngineStats


class Metrics:
    """Made when the server starts; requests are counted from `requests_of` on."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._registry = CollectorRegistry()
        self._started = time.time()
        self._requests: RequestMetrics | None = None
        self.http = HTTPMetrics(self._registry)
        self.loop_lag = LoopLag(self._registry)
        if not multiprocess.is_shared():
            ProcessCollector(registry=self._registry)

    def requests_of(self, model_name: str, max_model_len: int) -> RequestMetrics:
        """The observer that counts requests; it goes on counting when an engine is restarted."""
        if self._requests is None:
            self._requests = RequestMetrics(self._registry, model_name, max_model_len)
        return self._requests

    def text(
        self,
        model_name: str | None,
        engine: AsyncLLM | None,
        stats: EngineStats | None,
        rate: Throughput,
    ) -> bytes:
        """The text of a scrape; without an engine, or its stats, their metrics are absent."""
        families = self._measured()
        families += derived_http_families(families, model_name)
        families += server_families(self._started)
        if engine is not None and model_name is not None:
            families += start_families(model_name, engine.config, engine.facts)
            if stats is not None:
                families += engine_families(model_name, stats, rate)
        return expose(families, self._prefix)

    def _measured(self) -> list[Metric]:
        if not multiprocess.is_shared():
            return list(self._registry.collect())
        from prometheus_client.multiprocess import MultiProcessCollector

        shared = CollectorRegistry()
        MultiProcessCollector(shared)
        return list(shared.collect())
