"""The results of a measurement, under the keys that users of other load generators know."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from quire.bench.serving.measure import Measured

METRICS: Mapping[str, str] = {
    "ttft": "Time to First Token",
    "tpot": "Time per Output Token (excl. 1st token)",
    "itl": "Inter-token Latency",
    "e2el": "End-to-end Latency",
}
GOODPUT_METRICS = ("ttft", "tpot", "e2el")
DETAILS = ("input_lens", "output_lens", "start_times", "ttfts", "itls", "generated_texts", "errors")


def summarize(
    all_measured: Sequence[Measured],
    duration: float,
    *,
    percentiles: Sequence[float] = (99.0,),
    goodput: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """All results; ``duration`` in seconds, ``goodput``: metric -> the most milliseconds of a
    request that counts as good."""
    good = [one for one in all_measured if one.ok]
    num_input = sum(one.num_prompt_tokens for one in good)
    num_output = sum(one.num_output_tokens for one in good)
    num_within = sum(_is_within(one, goodput) for one in good) if goodput else None
    result: dict[str, Any] = {
        "duration": duration,
        "completed": len(good),
        "failed": len(all_measured) - len(good),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(good) / duration,
        "request_goodput": None if num_within is None else num_within / duration,
        "output_throughput": num_output / duration,
        "total_token_throughput": (num_input + num_output) / duration,
        "max_output_tokens_per_s": max(busiest_second(good), num_output / duration),
        "max_concurrent_requests": most_at_once(good),
        "input_lens": [one.num_prompt_tokens for one in all_measured],
        "output_lens": [one.num_output_tokens for one in all_measured],
        "start_times": [one.started for one in all_measured],
        "ttfts": [one.ttft for one in all_measured],
        "itls": [one.itls for one in all_measured],
        "generated_texts": [one.text for one in all_measured],
        "errors": [one.error for one in all_measured],
    }
    for name, values in _values(good).items():
        result |= _statistics(name, values, percentiles)
    return result


def percentile_key(percentile: float) -> str:
    """The key of a percentile, such as ``p99`` or ``p99.9``."""
    return f"p{int(percentile) if percentile == int(percentile) else percentile}"


def busiest_second(measured: Sequence[Measured]) -> float:
    """Most output tokens in one second, wherever it begins; an answer's tokens are spread evenly
    over its events. The mean of a run that is shorter, or has tokens far apart, can be higher:
    then that is its peak."""
    events = sorted(
        (when, one.num_output_tokens / (len(one.itls) + 1))
        for one in measured
        for when in accumulate(one.itls, initial=one.started + one.ttft)
    )
    if not events:
        return 0.0
    times, shares = np.array(events).T
    num_before = np.concatenate([[0.0], np.cumsum(shares)])
    behind = np.searchsorted(times, times + 1.0)
    return float(np.max(num_before[behind] - num_before[:-1]))


def most_at_once(measured: Sequence[Measured]) -> int:
    """Most requests that ran at the same moment."""
    changes = [(one.started, 1) for one in measured]
    changes += [(one.started + one.e2el, -1) for one in measured]
    return max(accumulate((change for _, change in sorted(changes)), initial=0))


def _values(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """Metric -> its values in seconds."""
    return {
        "ttft": [one.ttft for one in measured],
        "tpot": [tpot for one in measured if (tpot := one.tpot) is not None],
        "itl": [itl for one in measured for itl in one.itls],
        "e2el": [one.e2el for one in measured],
    }


def _statistics(
    name: str, seconds: Sequence[float], percentiles: Sequence[float]
) -> dict[str, float]:
    milliseconds = np.array(seconds or [0.0]) * 1000.0
    result = {
        f"mean_{name}_ms": float(np.mean(milliseconds)),
        f"median_{name}_ms": float(np.median(milliseconds)),
        f"std_{name}_ms": float(np.std(milliseconds)),
    }
    for percentile in percentiles:
        key = f"{percentile_key(percentile)}_{name}_ms"
        result[key] = float(np.percentile(milliseconds, percentile))
    return result


def _is_within(one: Measured, goodput: Mapping[str, float]) -> bool:
    values = {"ttft": one.ttft, "tpot": one.tpot or 0.0, "e2el": one.e2el}
    return all(values[name] * 1000.0 <= most for name, most in goodput.items())


def table(result: Mapping[str, Any], metrics: Sequence[str], percentiles: Sequence[float]) -> str:
    """The result as a table for a terminal, with these ``metrics`` and ``percentiles``."""
    lines = [_title("Serving Benchmark Result", "=")]
    lines += [_row(label, result[key]) for key, label in _ROWS if result[key] is not None]
    for name in metrics:
        lines.append(_title(METRICS[name], "-"))
        for kind in ("mean", "median", *(percentile_key(one) for one in percentiles)):
            label = kind.capitalize() if kind[0] == "m" else kind.upper()
            lines.append(_row(f"{label} {name.upper()} (ms)", result[f"{kind}_{name}_ms"]))
    return "\n".join([*lines, "=" * _WIDTH])


_WIDTH = 50
_ROWS = (
    ("completed", "Successful requests"),
    ("failed", "Failed requests"),
    ("duration", "Benchmark duration (s)"),
    ("total_input_tokens", "Total input tokens"),
    ("total_output_tokens", "Total generated tokens"),
    ("request_throughput", "Request throughput (req/s)"),
    ("request_goodput", "Request goodput (req/s)"),
    ("output_throughput", "Output token throughput (tok/s)"),
    ("max_output_tokens_per_s", "Peak output token throughput (tok/s)"),
    ("max_concurrent_requests", "Peak concurrent requests"),
    ("total_token_throughput", "Total token throughput (tok/s)"),
)


def _title(text: str, line: str) -> str:
    return f"{text:{line}^{_WIDTH}}"


def _row(label: str, value: float) -> str:
    shown = f"{value:d}" if isinstance(value, int) else f"{value:.2f}"
    return f"{label + ':':<{_WIDTH - 10}}{shown:>10}"


def rate_text(rate: float) -> str | float:
    """``rate`` for JSON, which has no infinity."""
    return "inf" if math.isinf(rate) else rate
