"""Rates between two looks; a log line only while there is something to say."""

from __future__ import annotations

import logging

import pytest

from quire.metrics.throughput import Throughput, ThroughputMeter, kv_usage, log_throughput
from quire.step_output import EngineStats


def stats(steps: int, prompt: int, generated: int, queries: int = 0, hits: int = 0) -> EngineStats:
    return EngineStats(
        num_steps=steps,
        num_prompt_tokens=prompt,
        num_generation_tokens=generated,
        num_prefix_query_tokens=queries,
        num_prefix_hit_tokens=hits,
    )


def test_rates_are_of_the_time_between_two_looks() -> None:
    meter = ThroughputMeter()
    meter.look(stats(10, 1000, 200, 1000, 0), 100.0)
    rate = meter.look(stats(20, 1500, 900, 2000, 250), 110.0)
    assert rate is not None
    assert (rate.prompt_tokens_s, rate.generation_tokens_s) == (50.0, 70.0)
    assert rate.prefix_hit_rate == 0.25
    assert rate.was_busy
    later = meter.look(stats(20, 1500, 900, 2000, 250), 120.0)
    assert later is not None and not later.was_busy


def test_what_an_engine_did_before_the_first_look_is_no_rate() -> None:
    """As where a process is new and its engine is not."""
    meter = ThroughputMeter()
    assert meter.look(stats(100, 9000, 9000, 9000, 4500), 100.0) is None
    rate = meter.look(stats(101, 9030, 9020), 110.0)
    assert rate is not None and rate.generation_tokens_s == 2.0


def test_no_rate_is_below_nothing() -> None:
    meter = ThroughputMeter()
    meter.look(stats(100, 9000, 9000, 9000, 4500), 100.0)
    assert meter.look(stats(200, 30, 20, 30, 10), 110.0) == Throughput()


def test_the_line_is_quiet_when_idle(caplog: pytest.LogCaptureFixture) -> None:
    now = EngineStats(num_running=3, num_waiting=2, num_blocks=101, num_free_blocks=75)
    with caplog.at_level(logging.INFO, logger="quire"):
        log_throughput(now, Throughput())
        assert caplog.records == []
        log_throughput(now, Throughput(generation_tokens_s=12.5, was_busy=True))
    (record,) = caplog.records
    assert "running 3, waiting 2" in record.message
    assert "generation 12.5 tok/s, KV in use 25.0 %" in record.message
    assert vars(record)["fields"]["generation_tokens_per_s"] == 12.5


def test_kv_usage_leaves_out_the_null_block() -> None:
    assert kv_usage(EngineStats(num_blocks=11, num_free_blocks=5)) == 0.5
    assert kv_usage(EngineStats()) == 0.0
