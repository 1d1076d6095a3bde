"""The engine's own numbers as metrics: what is a counter never falls."""

from __future__ import annotations

from quire.engine.core import EngineCore
from quire.metrics.engine_metrics import engine_families
from quire.metrics.throughput import Throughput
from tests.unit.scheduler.engines import build, request, run


def counters(core: EngineCore) -> dict[str, float]:
    """Samples of all counters, by name and source."""
    return {
        f"{sample.name} {sample.labels.get('source', '')}".strip(): sample.value
        for family in engine_families("model", core.stats(), Throughput())
        if family.type == "counter"
        for sample in family.samples
    }


def test_no_counter_falls_when_a_prompt_that_is_cached_waits_and_then_runs() -> None:
    core, _ = build(max_num_seqs=1, max_num_batched_tokens=64)
    prompt = list(range(40))
    run(core, [request("first", prompt, 2)])
    core.add_request(request("runs", [9] * 8, 6))
    core.step()
    core.add_request(request("again", prompt, 2))
    before = counters(core)
    assert before["both:prompt_tokens_by_source_total local_compute"] == 48
    while core.has_unfinished:
        core.step()
        now = counters(core)
        assert {name for name, value in now.items() if value < before[name]} == set()
        before = now
    assert before["both:prompt_tokens_total"] == 88
    assert before["both:prompt_tokens_by_source_total local_compute"] == 52
    assert before["both:prompt_tokens_by_source_total local_cache_hit"] == 36
