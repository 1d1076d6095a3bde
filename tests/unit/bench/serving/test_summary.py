from __future__ import annotations

import numpy as np
import pytest

from quire.bench.serving.measure import Measured
from quire.bench.serving.summary import busiest_second, most_at_once, summarize, table


def measured(started: float, ttft: float, itls: list[float], tokens: int | None = None) -> Measured:
    count = len(itls) + 1 if tokens is None else tokens
    return Measured(
        started=started, num_prompt_tokens=10, num_output_tokens=count, ttft=ttft, itls=itls
    )


RUN = [
    measured(100.0, 0.2, [0.1, 0.1, 0.1]),
    measured(100.5, 0.4, [0.3, 0.1]),
    measured(103.0, 0.1, []),
]
FAILED = Measured(started=101.0, num_prompt_tokens=10, error="gone")


def test_sums_and_rates() -> None:
    result = summarize([*RUN, FAILED], 4.0)
    assert (result["completed"], result["failed"]) == (3, 1)
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (30, 8)
    assert result["request_throughput"] == 0.75
    assert result["output_throughput"] == 2.0
    assert result["total_token_throughput"] == 9.5
    assert result["request_goodput"] is None
    assert result["errors"] == ["", "", "", "gone"]


def test_latencies_are_the_formulas_of_their_names() -> None:
    result = summarize(RUN, 4.0, percentiles=(50.0, 99.9))
    assert result["mean_ttft_ms"] == pytest.approx(1000 * (0.2 + 0.4 + 0.1) / 3)
    assert result["median_ttft_ms"] == pytest.approx(200.0)
    # One token has no time per output token; the others share theirs among all but the first.
    assert result["mean_tpot_ms"] == pytest.approx(1000 * (0.3 / 3 + 0.4 / 2) / 2)
    itls = [100.0, 100.0, 100.0, 300.0, 100.0]
    assert result["std_itl_ms"] == pytest.approx(np.std(itls))
    assert result["p99.9_itl_ms"] == pytest.approx(np.percentile(itls, 99.9))
    assert result["mean_e2el_ms"] == pytest.approx(1000 * (0.5 + 0.8 + 0.1) / 3)


def test_tokens_that_come_together_count_each_for_tpot() -> None:
    result = summarize([measured(0.0, 0.1, [0.4], tokens=5)], 1.0)
    assert result["mean_tpot_ms"] == pytest.approx(100.0)
    assert result["mean_itl_ms"] == pytest.approx(400.0)


@pytest.mark.parametrize(
    ("limits", "num_good"),
    [({"ttft": 300.0}, 2), ({"tpot": 150.0}, 2), ({"ttft": 300.0, "e2el": 200.0}, 1)],
)
def test_goodput_counts_requests_within_all_limits(limits: dict[str, float], num_good: int) -> None:
    assert summarize(RUN, 2.0, goodput=limits)["request_goodput"] == num_good / 2.0


def test_the_busiest_second_begins_anywhere() -> None:
    """From 0.95 s on, after the first request began, in the midst of two answers."""
    busy = [measured(100.0, 0.95, [0.1, 0.75, 0.5]), measured(100.5, 0.6, [0.5, 2.0], tokens=6)]
    assert busiest_second(busy) == 3 + 4
    assert busiest_second([]) == 0


@pytest.mark.parametrize("duration", [0.25, 0.9, 1.5, 3.7])
def test_the_peak_of_a_run_is_not_below_its_mean(duration: float) -> None:
    """However short it is, and however its tokens come."""
    evenly = [measured(5.1 + i / 7, 0.0, [duration / 100] * 99) for i in range(3)]
    at_its_ends = [measured(5.1, 0.0, []), measured(5.1, duration, [])]
    for run in (evenly, at_its_ends):
        result = summarize(run, duration)
        assert result["max_output_tokens_per_s"] >= result["output_throughput"]


def test_the_most_requests_at_once() -> None:
    assert most_at_once(RUN) == 1
    assert most_at_once([measured(0.0, 1.0, []), measured(0.9, 1.0, []), measured(1.5, 1, [])]) == 2


def test_nothing_that_succeeded() -> None:
    result = summarize([FAILED], 1.0)
    assert result["completed"] == result["max_concurrent_requests"] == 0
    assert result["mean_ttft_ms"] == 0.0


def test_the_table_shows_what_was_asked_for() -> None:
    shown = table(summarize(RUN, 4.0, percentiles=(90.0,)), ["ttft"], [90.0])
    assert "Successful requests:                             3" in shown
    assert "P90 TTFT (ms):" in shown
    assert "TPOT" not in shown and "goodput" not in shown


def test_percentiles_have_keys_of_their_own() -> None:
    shown = table(summarize(RUN, 4.0, percentiles=(99.99999, 100.0)), ["ttft"], [99.99999, 100.0])
    assert "P99.99999 TTFT (ms):" in shown and "P100 TTFT (ms):" in shown
