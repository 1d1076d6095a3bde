"""A thousand streams at once, again and again, and a third of the clients vanish."""

from __future__ import annotations

import statistics

import psutil
import pytest

from tests.fakes.api_cases import num_lost_blocks
from tests.fakes.server import running_server
from tests.fakes.stream_storm import calm_texts, loop_lag, storm, until_idle, wrong

COUNT, ROUNDS = 1000, 16
SETTLED = 11  # rounds, in which the front end grows by a few jumps of 10 MiB; then it is flat
FLAGS = ("--max-num-seqs", "64", "--kv-cache-memory-bytes", "32MiB")


def resident_mib() -> list[int]:
    """Of the server and its engine, in the order in which they were started."""
    processes = psutil.Process().children(recursive=True)
    return [process.memory_info().rss >> 20 for process in processes]


@pytest.mark.soak
async def test_a_thousand_streams_of_which_a_third_vanishes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What oneDNN and torch's layer above it keep for each shape of a batch, and the allocator for
    # each thread, grows for many rounds before it ends, and would hide what is lost.
    monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "16")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")
    with running_server(FLAGS) as url:
        expected = await calm_texts(url)
        memory = []
        for seed in range(ROUNDS):
            before = loop_lag(url)
            result = await storm(url, COUNT, seed)
            until_idle(url)
            lag = loop_lag(url).since(before)
            memory.append(resident_mib())
            first = statistics.quantiles(result.first_event_s, n=100)
            print(
                f"\n{len(result.texts)} streams complete, {result.num_gone} gone, "
                f"{result.seconds:.1f} s; first event p50 {first[49]:.2f} s, "
                f"p99 {first[98]:.2f} s; "
                f"loop lag p50 <= {lag.quantile(0.5)} s, p95 <= {lag.quantile(0.95)} s, "
                f"most <= {lag.quantile(1)} s; MiB {memory[-1]}",
                end="",
            )
            assert len(result.texts) == COUNT - COUNT // 3
            assert wrong(result, expected) == []
            assert (
                lag.quantile(0.95) <= 0.05
            )  # when a thousand come at once, they all wait a moment
            assert num_lost_blocks(url) == 0
    for early, late in zip(memory[SETTLED], memory[-1], strict=True):
        assert late - early < 16
