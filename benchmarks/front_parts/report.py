"""The front end's CPU time, as a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Times of one load."""

    seconds: float
    num_requests: int
    num_tokens: int  # of outputs
    mean_ttft_ms: float
    front_cpu_s: float
    core_cpu_s: float

    @property
    def tokens_a_second(self) -> float:
        return self.num_tokens / self.seconds

    @property
    def front_us_a_token(self) -> float:
        """CPU time of the front end per output token, that of prompts included."""
        return 1e6 * self.front_cpu_s / self.num_tokens

    @property
    def front_ms_a_request(self) -> float:
        return 1e3 * self.front_cpu_s / self.num_requests


COLUMNS: Mapping[str, tuple[Callable[[Cost], float], str]] = {
    "requests": (lambda cost: cost.num_requests, ",.0f"),
    "tokens": (lambda cost: cost.num_tokens, ",.0f"),
    "s": (lambda cost: cost.seconds, ".2f"),
    "tok/s": (lambda cost: cost.tokens_a_second, ",.0f"),
    "mean TTFT ms": (lambda cost: cost.mean_ttft_ms, ",.0f"),
    "front CPU s": (lambda cost: cost.front_cpu_s, ".2f"),
    "core CPU s": (lambda cost: cost.core_cpu_s, ".2f"),
    "front CPU us/token": (lambda cost: cost.front_us_a_token, ".1f"),
    "front CPU ms/request": (lambda cost: cost.front_ms_a_request, ".2f"),
}


def table(costs: Sequence[Cost]) -> str:
    """Markdown: a row for each repetition, and one of the medians of each column."""
    lines = [_line(["", *COLUMNS]), f"|---|{'--:|' * len(COLUMNS)}"]
    for number, cost in enumerate(costs, start=1):
        cells = [format(figure(cost), form) for figure, form in COLUMNS.values()]
        lines.append(_line([str(number), *cells]))
    medians = [
        format(median(figure(cost) for cost in costs), form) for figure, form in COLUMNS.values()
    ]
    return "\n".join([*lines, _line(["median", *medians])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
