"""What vLLM, the peer, reached on the same work, and the goals for Quire.

vLLM 0.26.0 with torch 2.11 on one NVIDIA H200, its own server and load generator on one host: 512
tokens in and 128 out, Poisson arrivals, fresh random prompts for every rate, no prefix cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ALL_AT_ONCE = float("inf")


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Figures at one rate; latencies in milliseconds. None: not measured."""

    mean_ttft: float | None = None
    p99_ttft: float | None = None
    mean_tpot: float | None = None
    p99_tpot: float | None = None
    output_throughput: float | None = None  # tokens a second


Rates = Mapping[float, Figures]  # by requests a second
PEER: Mapping[str, Rates] = {
    "llama-3.1-8b": {
        4.0: Figures(
            mean_ttft=26, p99_ttft=42, mean_tpot=5.16, p99_tpot=5.52, output_throughput=491
        ),
        32.0: Figures(
            mean_ttft=39, p99_ttft=76, mean_tpot=8.80, p99_tpot=11.4, output_throughput=3889
        ),
        ALL_AT_ONCE: Figures(output_throughput=6925),
    },
    "qwen3-0.6b": {
        4.0: Figures(
            mean_ttft=16, p99_ttft=31, mean_tpot=1.68, p99_tpot=1.87, output_throughput=505
        ),
        ALL_AT_ONCE: Figures(output_throughput=23280),
    },
}
# With all requests at once: least throughput, in multiples of the peer's.
THROUGHPUT_GOALS = {"llama-3.1-8b": 1.1, "qwen3-0.6b": 1.4}
OFFLINE_GOAL = 0.95  # of the throughput without a server, for the larger model


def peer_figures(model: str, rate: float) -> Figures:
    return PEER.get(model, {}).get(rate, Figures())
