"""Measured figures beside the peer's, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .peer import ALL_AT_ONCE, OFFLINE_GOAL, THROUGHPUT_GOALS, peer_figures

# Key of the result -> field of `Figures`, and whether less is better.
COLUMNS: Mapping[str, tuple[str, bool]] = {
    "mean_ttft_ms": ("mean_ttft", True),
    "p99_ttft_ms": ("p99_ttft", True),
    "mean_tpot_ms": ("mean_tpot", True),
    "p99_tpot_ms": ("p99_tpot", True),
    "output_throughput": ("output_throughput", False),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One measured figure; without a goal it is only shown, not judged."""

    model: str
    rate: float
    what: str
    ours: float
    peer: float | None
    goal: float | None
    less_is_better: bool

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.ours <= self.goal if self.less_is_better else self.ours >= self.goal


def lines_of(model: str, rate: float, result: Mapping[str, Any]) -> list[Line]:
    """The figures of one run of the load generator."""
    peer = peer_figures(model, rate)
    lines = []
    for key, (name, less_is_better) in COLUMNS.items():
        theirs: float | None = getattr(peer, name)
        goal = theirs
        if theirs is not None and key == "output_throughput":
            # At a rate that both servers keep up with, throughput is given by the rate.
            goal = theirs * THROUGHPUT_GOALS[model] if rate == ALL_AT_ONCE else None
        lines.append(
            Line(
                model=model,
                rate=rate,
                what=key,
                ours=float(result[key]),
                peer=theirs,
                goal=goal,
                less_is_better=less_is_better,
            )
        )
    return lines


def offline_line(model: str, served: float, offline: float) -> Line:
    """The server's throughput compared with that of `LLM` without a server."""
    return Line(
        model=model,
        rate=ALL_AT_ONCE,
        what="of offline throughput",
        ours=served / offline,
        peer=None,
        goal=OFFLINE_GOAL if model == "llama-3.1-8b" else None,
        less_is_better=False,
    )


def table(lines: Sequence[Line]) -> str:
    """The lines as a Markdown table."""
    head = "| model | rate | figure | ours | vLLM 0.26 | goal | |\n|---|--:|---|--:|--:|--:|---|"
    return "\n".join([head, *(_row(line) for line in lines)])


def _row(line: Line) -> str:
    rate = "all" if line.rate == ALL_AT_ONCE else f"{line.rate:g}/s"
    verdict = {None: "", True: "met", False: "missed"}[line.met]
    cells = [line.model, rate, line.what.replace("_", " "), *map(_number, (line.ours, line.peer))]
    return f"| {' | '.join([*cells, _number(line.goal), verdict])} |"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
