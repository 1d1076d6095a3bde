"""Event loop lag: how late the loop resumes a task, and thus anything else that is due."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, Histogram

from quire.metrics import buckets

_INTERVAL_S = 0.05


class LoopLag:
    """Measures the event loop of one server process."""

    def __init__(self, registry: CollectorRegistry, interval_s: float = _INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._seconds = Histogram(
            "quire:event_loop_lag_seconds",
            "How late the server's event loop was, 20 times a second",
            buckets=buckets.LAG_SECONDS,
            registry=registry,
        )

    async def watch(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval_s
            await asyncio.sleep(self._interval_s)
            self._seconds.observe(max(0.0, loop.time() - due))
