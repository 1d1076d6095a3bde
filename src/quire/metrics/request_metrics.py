"""Histograms and counts of requests that have ended: a few microseconds for each, none for a token.

Watches an engine's requests, so that every endpoint is counted alike.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class _Spec:
    """One histogram."""

    help: str
    bounds: Sequence[float] | None = None  # None: numbers of tokens, up to the context's length
    scope: str = "both"


_GAPS = buckets.TOKEN_GAP_SECONDS
_LATENCY = buckets.REQUEST_SECONDS
_HISTOGRAMS: Mapping[str, _Spec] = {
    "request_prompt_tokens": _Spec("Prompt tokens of a request"),
    "request_generation_tokens": _Spec("Tokens of a completion; each of a request counts"),
    "request_max_num_generation_tokens": _Spec("Tokens of the longest completion of a request"),
    "request_params_max_tokens": _Spec("max_tokens of a request"),
    "request_prefill_kv_computed_tokens": _Spec(
        "Prompt tokens computed, not found in the prefix cache"
    ),
    "request_params_n": _Spec("Completions that a request asks for", buckets.NUM_COMPLETIONS),
    "request_params_best_of": _Spec(
        "Completions made for a request", buckets.NUM_COMPLETIONS, "vllm"
    ),
    "request_num_preemptions": _Spec("Preemptions of a request", buckets.NUM_PREEMPTIONS),
    "time_to_first_token_seconds": _Spec(
        "From a request's arrival to its first token", buckets.FIRST_TOKEN_SECONDS
    ),
    "inter_token_latency_seconds": _Spec(
        "Seconds between tokens, as the mean of the request", _GAPS
    ),
    "time_per_output_token_seconds": _Spec(
        "Older name of inter_token_latency_seconds", _GAPS, "vllm"
    ),
    "request_time_per_output_token_seconds": _Spec("Mean seconds per token after the first", _GAPS),
    "e2e_request_latency_seconds": _Spec("From a request's arrival to its end", _LATENCY),
    "request_queue_time_seconds": _Spec("From a request's arrival to its first step", _LATENCY),
    "request_inference_time_seconds": _Spec("From a request's first step to its end", _LATENCY),
    "request_prefill_time_seconds": _Spec(
        "From a request's first step to its first token", _LATENCY
    ),
    "request_decode_time_seconds": _Spec("From a request's first token to its end", _LATENCY),
}


class RequestMetrics:
    """A `RequestObserver`.

    The gaps between the tokens of a request all count as their mean: sums and counts are exact,
    and no token costs anything.
    """

    def __init__(self, registry: CollectorRegistry, model_name: str, max_model_len: int) -> None:
        labels = (model_name, ENGINE)
        tokens = buckets.token_counts(max_model_len)
        self._histograms: dict[str, _Weighted] = {}
        for name, spec in _HISTOGRAMS.items():
            bounds = tokens if spec.bounds is None else spec.bounds
            family = _Weighted(
                f"{spec.scope}:{name}", spec.help, _LABELS, buckets=bounds, registry=registry
            )
            self._histograms[name] = family.labels(*labels)
        ends = Counter(
            "both:request_success",
            "Completions that ended",
            (*_LABELS, "finished_reason"),
            registry=registry,
        )
        self._ends = {reason: ends.labels(*labels, reason.value) for reason in FinishReason}
        self._aborted = Counter(
            "quire:num_aborted_requests",
            "Requests that were aborted, such as by a client that left",
            _LABELS,
            registry=registry,
        ).labels(*labels)

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
        request, observe = end.request, self._observe
        observe("request_prompt_tokens", end.num_prompt_tokens)
        if end.timing.scheduled_ts:  # else it is not known to have begun
            num_computed = end.num_prompt_tokens - end.num_cached_tokens
            observe("request_prefill_kv_computed_tokens", num_computed)
        for one in end.completions:  # as vLLM counts them, and as `request_success` does
            observe("request_generation_tokens", one.num_tokens)
        observe(
            "request_max_num_generation_tokens",
            max((one.num_tokens for one in end.completions), default=0),
        )
        observe("request_params_n", request.params.n)
        observe("request_params_best_of", request.engine.num_completions)
        if request.params.max_tokens is not None:
            observe("request_params_max_tokens", request.params.max_tokens)
        observe("request_num_preemptions", end.timing.num_preemptions)

    def _observe_times(self, end: RequestEnd) -> None:
        """Observe the times that are known: a request aborted in the queue has no first token."""
        timing, observe = end.timing, self._observe
        arrival, first, last = timing.arrival_time, timing.first_token_ts, timing.last_token_ts
        last = last or end.end_time
        observe("e2e_request_latency_seconds", last - arrival)
        if timing.scheduled_ts:
            observe("request_queue_time_seconds", timing.scheduled_ts - arrival)
            observe("request_inference_time_seconds", last - timing.scheduled_ts)
        if not first:
            return
        observe("time_to_first_token_seconds", first - arrival)
        if timing.scheduled_ts:
            observe("request_prefill_time_seconds", first - timing.scheduled_ts)
        observe("request_decode_time_seconds", last - first)
        gaps = max(one.num_tokens for one in end.completions) - 1
        if gaps > 0:
            gap = max(0.0, last - first) / gaps
            observe("request_time_per_output_token_seconds", gap)
            num_gaps = sum(max(0, one.num_tokens - 1) for one in end.completions)
            for name in ("inter_token_latency_seconds", "time_per_output_token_seconds"):
                self._histograms[name].observe_many(gap, num_gaps)

    def _observe(self, name: str, value: float) -> None:
        """Observe a value, as 0 if it is negative: clocks of processes may differ slightly."""
        self._histograms[name].observe(max(0.0, value))
