"""Histograms and counts of requests that have ended: a few microseconds for each, none for a token.

Watches an engine's requests, so that every endpoint is counted alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from quire.engine.input_processor import ProcessedRequest
from quire.engine.observer import RequestEnd
from quire.metrics import buckets
from quire.request import FinishReason

ENGINE = "0"  # the label of the one core there is
_LABELS = ("model_name", "engine")


class _Weighted(Histogram):
    """A histogram that takes one value many times at once."""

    def observe_many(self, value: float, count: int) -> None:
        self._sum.inc(value * count)
        self._buckets[bisect_left(self._upper_bounds, value)].inc(count)


class RequestMetrics:
    """A `RequestObserver`.

    The gaps between the tokens of a request all count as their mean: sums and counts are exact,
    and no token costs anything.
    """

    def __init__(self, registry: CollectorRegistry, model_name: str, max_model_len: int) -> None:
        self._registry = registry
        self._model_name = model_name
        tokens = buckets.token_counts(max_model_len)
        latency = buckets.REQUEST_SECONDS
        made = self._histogram
        self._prompt_tokens = made("request_prompt_tokens", "Prompt tokens of a request", tokens)
        self._output_tokens = made("request_generation_tokens", "Tokens it generated", tokens)
        self._longest = made(
            "request_max_num_generation_tokens", "Tokens of its longest completion", tokens
        )
        self._n = made("request_params_n", "Completions asked for", buckets.NUM_COMPLETIONS)
        self._best_of = made(
            "request_params_best_of", "Completions made", buckets.NUM_COMPLETIONS, scope="vllm"
        )
        self._max_tokens = made("request_params_max_tokens", "max_tokens of a request", tokens)
        self._ttft = made(
            "time_to_first_token_seconds",
            "From a request's arrival to its first token",
            buckets.FIRST_TOKEN_SECONDS,
        )
        gaps = buckets.TOKEN_GAP_SECONDS
        self._itl = made(
            "inter_token_latency_seconds", "Between tokens: the mean of a request, per gap", gaps
        )
        self._older_itl = made(
            "time_per_output_token_seconds", "inter_token_latency_seconds", gaps, scope="vllm"
        )
        self._tpot = made(
            "request_time_per_output_token_seconds", "Mean seconds a token after the first", gaps
        )
        self._e2e = made("e2e_request_latency_seconds", "From arrival to end", latency)
        self._queue = made("request_queue_time_seconds", "From arrival to its first step", latency)
        self._inference = made(
            "request_inference_time_seconds", "From its first step to its end", latency
        )
        self._prefill = made(
            "request_prefill_time_seconds", "From its first step to its first token", latency
        )
        self._decode = made(
            "request_decode_time_seconds", "From its first token to its end", latency
        )
        self._preemptions = made(
            "request_num_preemptions", "Times it lost its KV blocks", buckets.NUM_PREEMPTIONS
        )
        self._computed = made(
            "request_prefill_kv_computed_tokens",
            "Prompt tokens computed, not found in the prefix cache",
            tokens,
        )
        ends = Counter(
            "both:request_success",
            "Completions that ended",
            (*_LABELS, "finished_reason"),
            registry=registry,
        )
        self._ends = {
            reason: ends.labels(model_name, ENGINE, reason.value) for reason in FinishReason
        }
        self._aborted = Counter(
            "quire:num_aborted_requests",
            "Requests whose clients left or gave up",
            _LABELS,
            registry=registry,
        ).labels(model_name, ENGINE)

    def request_started(self, request: ProcessedRequest) -> None:
        pass

    def request_ended(self, end: RequestEnd) -> None:
        for completion in end.completions:
            self._ends[completion.reason].inc()
        if any(one.reason is FinishReason.ABORT for one in end.completions):
            self._aborted.inc()
        self._observe_sizes(end)
        self._observe_times(end)

    def _observe_sizes(self, end: RequestEnd) -> None:
        request = end.request
        self._prompt_tokens.observe(end.num_prompt_tokens)
        self._computed.observe(end.num_prompt_tokens - end.num_cached_tokens)
        self._output_tokens.observe(end.num_generation_tokens)
        self._longest.observe(max((one.num_tokens for one in end.completions), default=0))
        self._n.observe(request.params.n)
        self._best_of.observe(request.engine.num_completions)
        if request.params.max_tokens is not None:
            self._max_tokens.observe(request.params.max_tokens)
        self._preemptions.observe(end.timing.num_preemptions)

    def _observe_times(self, end: RequestEnd) -> None:
        """Only those that are known: whoever is aborted in the queue had no first token."""
        timing = end.timing
        arrival, first, last = timing.arrival_time, timing.first_token_ts, timing.last_token_ts
        last = last or end.end_time
        self._e2e.observe(max(0.0, last - arrival))
        if timing.scheduled_ts:
            self._queue.observe(max(0.0, timing.scheduled_ts - arrival))
            self._inference.observe(max(0.0, last - timing.scheduled_ts))
        if not first:
            return
        self._ttft.observe(max(0.0, first - arrival))
        if timing.scheduled_ts:
            self._prefill.observe(max(0.0, first - timing.scheduled_ts))
        self._decode.observe(max(0.0, last - first))
        gaps = max(one.num_tokens for one in end.completions) - 1
        if gaps > 0:
            gap = max(0.0, last - first) / gaps
            self._tpot.observe(gap)
            num_gaps = sum(max(0, one.num_tokens - 1) for one in end.completions)
            self._itl.observe_many(gap, num_gaps)
            self._older_itl.observe_many(gap, num_gaps)

    def _histogram(
        self, name: str, help: str, bounds: Sequence[float], *, scope: str = "both"
    ) -> _Weighted:
        made = _Weighted(f"{scope}:{name}", help, _LABELS, buckets=bounds, registry=self._registry)
        return made.labels(self._model_name, ENGINE)
