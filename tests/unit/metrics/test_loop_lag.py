from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry

from quire.metrics.loop_lag import LoopLag


async def test_work_that_holds_up_the_loop_is_seen() -> None:
    registry = CollectorRegistry()
    lag = LoopLag(registry, interval_s=0.001)
    watching = asyncio.create_task(lag.watch())
    await asyncio.sleep(0)
    time.sleep(0.06)  # in the loop, which is what is to be seen
    for _ in range(2):
        await asyncio.sleep(0.002)
    watching.cancel()

    def at_most(seconds: float) -> float:
        name, labels = "quire:event_loop_lag_seconds_bucket", {"le": str(seconds)}
        return registry.get_sample_value(name, labels) or 0

    assert at_most(5.0) - at_most(0.05) >= 1
