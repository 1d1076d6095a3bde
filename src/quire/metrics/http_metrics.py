"""Counts of HTTP requests and responses. Knows no route; the server tells it what happened."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.samples import Sample

from quire.metrics import buckets

_RESPONSES = "quire:http_responses"
_REFUSED = "quire:refused"
_REFUSALS = ("queue_full", "bodies_full", "grammars_full")


class HTTPMetrics:
    """The HTTP metrics of one server process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._responses = Counter(
            _RESPONSES, "Responses by status", ("handler", "method", "status"), registry=registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "From a request's head to the end of its response",
            ("handler", "method"),
            buckets=buckets.HTTP_SECONDS,
            registry=registry,
        )
        self._active = Gauge(
            "quire:http_requests_active",
            "HTTP requests in flight",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._ignored = Counter(
            "quire:ignored_fields",
            "Unknown fields of requests that had no effect, by name",
            ("field",),
            registry=registry,
        )
        self._refused = Counter(
            _REFUSED, "Requests refused for now, by what was full", ("reason",), registry=registry
        )
        for reason in _REFUSALS:
            self._refused.labels(reason)  # 0, not absent
        self._known_ignored: set[str] = set()

    def started(self) -> None:
        self._active.inc()

    def ended(self, handler: str, method: str, status: int, seconds: float) -> None:
        """A response has gone out, or its client has left (status 499)."""
        self._active.dec()
        self._responses.labels(handler, method, str(status)).inc()
        self._seconds.labels(handler, method).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request got 429, since this was full."""
        self._refused.labels(reason).inc()

    def fields_ignored(self, names: Iterable[str]) -> None:
        """Count ignored fields; clients choose the names, so only `_MAX_FIELDS` are told apart."""
        for name in names:
            if name not in self._known_ignored and len(self._known_ignored) >= _MAX_FIELDS:
                name = "other"
            self._known_ignored.add(name)
            self._ignored.labels(name[:_MAX_FIELD_CHARS]).inc()


_MAX_FIELDS = 50
_MAX_FIELD_CHARS = 40


def derived_http_families(families: list[Metric], model_name: str | None) -> Iterator[Metric]:
    """Metrics under other engines' names, derived from the counted responses."""
    grouped: Tally[tuple[str, str, str]] = Tally()
    for sample in _totals(families, _RESPONSES):
        status = sample.labels["status"]
        key = (sample.labels["handler"], sample.labels["method"], f"{status[0]}xx")
        grouped[key] += int(sample.value)
    requests = CounterMetricFamily(
        "http_requests", "Responses by class of status", labels=("handler", "method", "status")
    )
    for labels, count in grouped.items():
        requests.add_metric(labels, count)
    yield requests
    if model_name is not None:
        refusals = CounterMetricFamily(
            "both:admission_rejections",
            "Requests refused for now (429), by what was full",
            labels=("model_name", "reason"),
        )
        for sample in _totals(families, _REFUSED):
            refusals.add_metric((model_name, sample.labels["reason"]), sample.value)
        yield refusals


def _totals(families: list[Metric], name: str) -> list[Sample]:
    """The values of one counter, without the times of their creation."""
    return [
        sample
        for family in families
        if family.name == name
        for sample in family.samples
        if sample.name.endswith("_total")
    ]
