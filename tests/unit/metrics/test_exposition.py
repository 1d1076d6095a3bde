"""One measurement, the names that dashboards ask for."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families

from quire.metrics.exposition import expose


def exposed(wanted: str) -> str:
    registry = CollectorRegistry()
    Counter("both:tokens", "Tokens", ["engine"], registry=registry).labels("0").inc(3)
    Gauge("quire:extra", "Only ours", registry=registry).set(1)
    Gauge("vllm:older", "Only theirs", registry=registry).set(2)
    Gauge("process_size", "Nobody's", registry=registry).set(4)
    Histogram("both:seconds", "Seconds", buckets=[1], registry=registry).observe(0.5)
    return expose(registry.collect(), wanted).decode()


@pytest.mark.parametrize(
    ("wanted", "engines"), [("vllm", ["vllm"]), ("quire", ["quire"]), ("both", ["vllm", "quire"])]
)
def test_prefixes_are_those_wanted(wanted: str, engines: list[str]) -> None:
    lines = exposed(wanted).splitlines()
    assert [f'{e}:tokens_total{{engine="0"}} 3.0' for e in engines] == [
        line for line in lines if ":tokens_total{" in line
    ]
    assert ("quire:extra 1.0" in lines) == ("quire" in engines)
    assert ("vllm:older 2.0" in lines) == ("vllm" in engines)
    assert "process_size 4.0" in lines
    assert not any("both:" in line or "_created" in line for line in lines)


def test_the_text_can_be_parsed_again() -> None:
    families = {one.name: one for one in text_string_to_metric_families(exposed("both"))}
    samples = {(s.name, s.labels.get("le")): s.value for s in families["vllm:seconds"].samples}
    assert samples["vllm:seconds_bucket", "1.0"] == samples["vllm:seconds_count", None] == 1
    assert families["quire:tokens"].type == "counter"
