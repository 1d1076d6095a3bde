"""Rates of an engine between two samples of its counts, and the log line that shows them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from quire.step_output import EngineStats

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Rates between two samples; the hit rate is over the tokens looked up between them."""

    prompt_tokens_s: float = 0.0
    generation_tokens_s: float = 0.0
    prefix_hit_rate: float = 0.0
    was_busy: bool = False


class ThroughputMeter:
    """Computes the rates of one engine from samples of its stats."""

    def __init__(self) -> None:
        self._last: tuple[EngineStats, float] | None = None
        self.rate = Throughput()

    def look(self, stats: EngineStats, stats_time: float) -> Throughput | None:
        """The rates since the previous sample; None for the first one. ``stats_time`` is when the
        stats were taken, in ``time.monotonic()`` seconds."""
        last, self._last = self._last, (stats, stats_time)
        if last is None:
            return None
        before, before_time = last
        seconds = max(stats_time - before_time, 1e-9)
        prompt = max(0, stats.num_prompt_tokens - before.num_prompt_tokens)
        generated = max(0, stats.num_generation_tokens - before.num_generation_tokens)
        queries = max(0, stats.num_prefix_query_tokens - before.num_prefix_query_tokens)
        hits = max(0, stats.num_prefix_hit_tokens - before.num_prefix_hit_tokens)
        self.rate = Throughput(
            prompt_tokens_s=prompt / seconds,
            generation_tokens_s=generated / seconds,
            prefix_hit_rate=hits / queries if queries else 0.0,
            was_busy=bool(prompt or generated or stats.num_running or stats.num_waiting),
        )
        return self.rate


def kv_usage(stats: EngineStats) -> float:
    """Share of KV blocks that requests hold, 0 to 1; the null block is not counted."""
    usable = stats.num_blocks - 1
    return 1 - stats.num_free_blocks / usable if usable > 0 else 0.0


def log_throughput(stats: EngineStats, rate: Throughput) -> None:
    """Log one line, unless the engine was idle."""
    if not rate.was_busy:
        return
    usage = kv_usage(stats)
    logger.info(
        "running %d, waiting %d, prompts %.1f tok/s, generation %.1f tok/s, KV in use %.1f %%, "
        "prefix hits %.1f %%",
        stats.num_running,
        stats.num_waiting,
        rate.prompt_tokens_s,
        rate.generation_tokens_s,
        100 * usage,
        100 * rate.prefix_hit_rate,
        extra={
            "fields": {
                "running": stats.num_running,
                "waiting": stats.num_waiting,
                "prompt_tokens_per_s": round(rate.prompt_tokens_s, 1),
                "generation_tokens_per_s": round(rate.generation_tokens_s, 1),
                "kv_usage": round(usage, 4),
                "prefix_hit_rate": round(rate.prefix_hit_rate, 4),
            }
        },
    )
