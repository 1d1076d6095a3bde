"""Each histogram gets the figure that its name promises; unknown times are not made up."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from quire.metrics.buckets import token_counts
from quire.metrics.request_metrics import RequestMetrics
from quire.request import FinishReason
from tests.unit.metrics.ends import ended, request

LABELS = {"model_name": "tiny", "engine": "0"}


class Reader:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = RequestMetrics(self.registry, "tiny", 2048)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, {**LABELS, **labels})

    def sum_and_count(self, name: str) -> tuple[float | None, float | None]:
        return self.value(f"both:{name}_sum"), self.value(f"both:{name}_count")


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("request_prompt_tokens", 100),
        ("request_prefill_kv_computed_tokens", 36),
        ("request_generation_tokens", 11),
        ("request_max_num_generation_tokens", 11),
        ("request_params_max_tokens", 50),
        ("request_params_n", 1),
        ("time_to_first_token_seconds", 1.0),
        ("request_queue_time_seconds", 0.4),
        ("request_prefill_time_seconds", 0.6),
        ("request_decode_time_seconds", 2.0),
        ("request_inference_time_seconds", 2.6),
        ("e2e_request_latency_seconds", 3.0),
        ("request_time_per_output_token_seconds", 0.2),
    ],
)
def test_a_request_is_observed_once(reader: Reader, name: str, expected: float) -> None:
    reader.metrics.request_ended(ended())
    assert reader.sum_and_count(name) == (pytest.approx(expected), 1)


def test_every_gap_between_tokens_counts(reader: Reader) -> None:
    reader.metrics.request_ended(ended())
    assert reader.sum_and_count("inter_token_latency_seconds") == (pytest.approx(2.0), 10)
    bucket = "both:inter_token_latency_seconds_bucket"
    assert (reader.value(bucket, le="0.15"), reader.value(bucket, le="0.2")) == (0, 10)


def test_completions_are_counted_by_how_they_ended(reader: Reader) -> None:
    asked = request(n=3, temperature=1.0)
    stop, length = FinishReason.STOP, FinishReason.LENGTH
    reader.metrics.request_ended(ended(asked, (5, stop), (50, length), (7, stop)))
    counts = {
        reason: reader.value("both:request_success_total", finished_reason=reason)
        for reason in ("stop", "length", "abort", "error")
    }
    assert counts == {"stop": 2, "length": 1, "abort": 0, "error": 0}
    assert reader.sum_and_count("request_max_num_generation_tokens") == (50, 1)
    assert reader.sum_and_count("request_generation_tokens") == (62, 3)
    for once in ("e2e_request_latency_seconds", "request_prompt_tokens", "request_params_n"):
        assert reader.sum_and_count(once)[1] == 1


def test_a_request_aborted_in_the_queue_has_no_first_token(reader: Reader) -> None:
    end = ended(None, (0, FinishReason.ABORT), scheduled_ts=0, first_token_ts=0, last_token_ts=0)
    reader.metrics.request_ended(end)
    assert reader.value("quire:num_aborted_requests_total") == 1
    assert reader.sum_and_count("e2e_request_latency_seconds") == (pytest.approx(3.0), 1)
    for name in (
        "time_to_first_token_seconds",
        "request_queue_time_seconds",
        "request_prefill_kv_computed_tokens",
    ):
        assert reader.sum_and_count(name) == (0, 0)


def test_token_buckets_go_up_to_the_longest_context() -> None:
    assert token_counts(2048) == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
