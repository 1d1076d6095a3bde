"""Counts of HTTP requests, and how the dashboard asks for them."""

from __future__ import annotations

import json
from pathlib import Path

from prometheus_client import CollectorRegistry

from quire.metrics.http_metrics import HTTPMetrics

DASHBOARD = Path(__file__).parents[3] / "docs" / "grafana.json"


def test_the_dashboard_shows_0_for_counts_that_do_not_exist_yet() -> None:
    registry = CollectorRegistry()
    metrics = HTTPMetrics(registry)
    metrics.started()
    metrics.ended("/metrics", "GET", 200, 0.1)  # the scrape itself
    absent = [family.name for family in registry.collect() if not family.samples]
    assert absent
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for name in absent:
        asking = [query for query in queries if name in query]
        assert asking and all(query.endswith(" or on() vector(0)") for query in asking)
