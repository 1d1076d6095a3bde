"""The engine core's statistics as metrics, made at each scrape at no other cost.

The core counts. Several HTTP processes show the same core, so nothing is summed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from quire.config import EngineConfig
from quire.metrics.request_metrics import ENGINE
from quire.metrics.throughput import Throughput, kv_usage
from quire.step_output import STEP_TOKENS_BOUNDS, EngineFacts, EngineStats


def engine_families(model_name: str, stats: EngineStats, rate: Throughput) -> Iterator[Metric]:
    """The metrics made of the engine's statistics."""
    labels = _labels(model_name)
    for name, (help, value) in _gauges(stats, rate).items():
        yield _gauge(name, help, labels, value)
    for name, (help, value) in _counts(stats).items():
        yield _counter(name, help, labels, value)
    yield from _by_label(stats, labels)
    yield _step_tokens(stats, labels)


def start_families(model_name: str, config: EngineConfig, facts: EngineFacts) -> Iterator[Metric]:
    """The metrics that are fixed once the engine has started."""
    yield from _start_up(facts, _labels(model_name))
    yield _gauge("both:cache_config_info", "The KV cache", _cache_labels(config, facts), 1)


def _labels(model_name: str) -> dict[str, str]:
    return {"model_name": model_name, "engine": ENGINE}


def _gauges(stats: EngineStats, rate: Throughput) -> dict[str, tuple[str, float]]:
    usage = kv_usage(stats)
    return {
        "both:num_requests_running": ("Completions in the running batch", stats.num_running),
        "both:num_requests_waiting": ("Completions in the queue", stats.num_waiting),
        "both:kv_cache_usage_perc": ("Share of KV blocks in use, 0 to 1", usage),
        "quire:kv_blocks": ("Total number of KV blocks", stats.num_blocks),
        "quire:kv_blocks_free": ("KV blocks free to be allocated", stats.num_free_blocks),
        "quire:kv_blocks_cached": (
            "Free KV blocks that hold a cached prefix",
            stats.num_cached_blocks,
        ),
        "quire:kv_blocks_shared": ("KV blocks with several owners", stats.num_shared_blocks),
        "quire:kv_slot_waste": ("Share of reserved slots that hold no token", stats.kv_waste),
        "vllm:gpu_cache_usage_perc": ("Older name of kv_cache_usage_perc", usage),
        "vllm:gpu_prefix_cache_hit_rate": ("Prefix hit rate, 0 to 1, lately", rate.prefix_hit_rate),
        "vllm:avg_prompt_throughput_toks_per_s": (
            "Prompt tokens per second, lately",
            rate.prompt_tokens_s,
        ),
        "vllm:avg_generation_throughput_toks_per_s": (
            "Generated tokens per second, lately",
            rate.generation_tokens_s,
        ),
        # There is no swapping: the stock dashboard asks for both all the same.
        "vllm:num_requests_swapped": ("Always 0: requests are recomputed instead", 0),
        "vllm:cpu_cache_usage_perc": ("Always 0: there is no second cache", 0),
    }


def _counts(stats: EngineStats) -> dict[str, tuple[str, float]]:
    prompt, hits = stats.num_prompt_tokens, stats.num_prefix_hit_tokens
    queries = stats.num_prefix_query_tokens
    return {
        "both:prefix_cache_queries": ("Prompt tokens looked up in the prefix cache", queries),
        "both:prefix_cache_hits": ("Prompt tokens found in the prefix cache", hits),
        "vllm:gpu_prefix_cache_queries": ("Older name of prefix_cache_queries", queries),
        "vllm:gpu_prefix_cache_hits": ("Older name of prefix_cache_hits", hits),
        "both:num_preemptions": ("Preemptions of completions", stats.num_preemptions),
        "both:prompt_tokens": ("Prompt tokens of requests that began to run", prompt),
        "both:prompt_tokens_cached": ("Prompt tokens found in the prefix cache", hits),
        "both:generation_tokens": ("Tokens generated", stats.num_generation_tokens),
        "vllm:tokens": ("Prompt and generated tokens", prompt + stats.num_generation_tokens),
        "quire:num_steps": ("Steps of the engine", stats.num_steps),
        "quire:evicted_blocks": ("Cached KV blocks evicted", stats.num_evicted_blocks),
        "quire:evicted_tokens": (
            "Tokens in evicted KV blocks",
            stats.num_evicted_blocks * stats.block_size,
        ),
    }


def _by_label(stats: EngineStats, labels: Mapping[str, str]) -> Iterator[Metric]:
    hits = stats.num_prefix_hit_tokens
    computed = stats.num_prompt_tokens - hits  # both are counted when a prompt begins to run
    family = CounterMetricFamily(
        "both:prompt_tokens_by_source", "Prompt tokens by their source", labels=()
    )
    for source, value in (("local_compute", computed), ("local_cache_hit", hits)):
        family.add_sample(family.name + "_total", {**labels, "source": source}, value)
    yield family
    cached = CounterMetricFamily(
        "both:prompt_tokens_cached_by_source", "Cached prompt tokens by their cache", labels=()
    )
    cached.add_sample(cached.name + "_total", {**labels, "source": "local_cache_hit"}, hits)
    yield cached
    waiting = {**labels, "reason": "capacity"}
    yield _gauge(
        "both:num_requests_waiting_by_reason",
        "Completions in the queue by reason",
        waiting,
        stats.num_waiting,
    )


def _step_tokens(stats: EngineStats, labels: Mapping[str, str]) -> Metric:
    family = HistogramMetricFamily(
        "both:iteration_tokens_total", "Tokens in a step of the engine", labels=list(labels)
    )
    counts = stats.steps_by_tokens or (0,) * (len(STEP_TOKENS_BOUNDS) + 1)
    cumulative, below = [], 0
    for bound, count in zip(
        [*map(str, map(float, STEP_TOKENS_BOUNDS)), "+Inf"], counts, strict=True
    ):
        below += count
        cumulative.append((bound, float(below)))
    family.add_metric(list(labels.values()), cumulative, sum_value=stats.num_step_tokens)
    return family


def _start_up(facts: EngineFacts, labels: Mapping[str, str]) -> Iterator[Metric]:
    yield _gauge("quire:weight_bytes", "Memory of the weights", labels, facts.weight_bytes)
    yield _gauge("quire:kv_cache_bytes", "Memory of the KV cache", labels, facts.kv_cache_bytes)
    tokens = facts.kv_capacity_tokens
    yield _gauge("quire:kv_capacity_tokens", "Tokens that the KV cache holds", labels, tokens)
    family = GaugeMetricFamily("quire:startup_seconds", "Seconds of the start-up, by phase")
    for phase, seconds in facts.phase_seconds.items():
        family.add_sample(family.name, {**labels, "phase": phase}, seconds)
    yield family


def _cache_labels(config: EngineConfig, facts: EngineFacts) -> dict[str, str]:
    fields = {**asdict(config.cache), "block_size": facts.block_size}
    on_gpu = {"num_gpu_blocks": facts.num_blocks, "cache_dtype": config.kv_dtype}
    labels = {name: str(value) for name, value in {**fields, **on_gpu}.items()}
    return {"engine": ENGINE, **labels}


def _gauge(name: str, help: str, labels: Mapping[str, str], value: float) -> Metric:
    family = GaugeMetricFamily(name, help)
    family.add_sample(name, dict(labels), value)
    return family


def _counter(name: str, help: str, labels: Mapping[str, str], value: float) -> Metric:
    family = CounterMetricFamily(name, help)
    family.add_sample(f"{name}_total", dict(labels), value)
    return family


def server_families(started: float) -> Iterator[Metric]:
    """The metrics of the server itself, with or without an engine."""
    yield _gauge(
        "quire:uptime_seconds", "Seconds since the server started", {}, time.time() - started
    )
