"""Turns records into reports: a table, Markdown, results.json, and a plot.

Every planned row is in the table: measured, failed or skipped with its reason.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .records import FAILED, SKIPPED, Record, of_kind
from .targets import (
    GAP_GOAL_US,
    HOST_STEP_GOAL_US,
    PEER,
    SECONDS,
    START_TARGETS,
    StartTarget,
    Target,
    target_of,
)

COMPARED = ("Quire", "ceiling", "of ceiling", PEER, "vs vLLM", "goal", "met")
HEADER = ("model", "workload", "unit", *COMPARED)


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table; without a value, ``note`` says why."""

    model: str
    workload: str
    unit: str
    value: float | None = None
    ceiling: float | None = None
    peer: float | None = None
    goal: float | None = None
    note: str = ""

    @property
    def is_time(self) -> bool:
        return self.unit == SECONDS

    @property
    def of_ceiling(self) -> float | None:
        """Speed relative to the device's ceiling; None without a value or a ceiling."""
        return self._ratio(self.ceiling)

    @property
    def to_peer(self) -> float | None:
        """Speed relative to the peer, above 1.0 if faster; None without a value or a peer."""
        return self._ratio(self.peer)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a value."""
        ratio = self._ratio(self.goal)
        return None if ratio is None else ratio >= 1

    @property
    def is_short(self) -> bool:
        """Whether the row falls short of its goal or, without one, of the peer."""
        mark = self._ratio(self.peer if self.goal is None else self.goal)
        return mark is not None and mark < 1

    def _ratio(self, other: float | None) -> float | None:
        if self.value is None or other is None:
            return None
        return other / self.value if self.is_time else self.value / other

    def cells(self) -> tuple[str, ...]:
        value = self.note if self.value is None else number(self.value)
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return (
            self.model, self.workload, self.unit, value, number(self.ceiling),
            percent(self.of_ceiling), number(self.peer),
            "" if self.to_peer is None else f"{self.to_peer:.2f}x", number(self.goal), met,
        )  # fmt: skip


def number(value: float | None) -> str:
    """``value`` rounded to three or four significant digits; empty for None."""
    if value is None:
        return ""
    if value >= 1000:
        digits = 3 if value >= 10_000 else 4
        factor = 10 ** max(0, len(str(int(value))) - digits)
        return f"{round(value / factor) * factor:,}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def speed_rows(records: Sequence[Record], planned: Sequence[tuple[str, str]]) -> list[Row]:
    """One row for every planned (model, workload), in this order."""
    measured = {(one["model"], one["workload"]): one for one in of_kind(records, "speed")}
    return [
        _speed_row(target_of(model, workload), measured.get((model, workload)), records)
        for model, workload in planned
    ]


def _speed_row(target: Target, record: Record | None, records: Sequence[Record]) -> Row:
    return Row(
        model=target.model,
        workload=target.workload,
        unit=target.unit,
        peer=target.peer,
        goal=target.goal,
        value=record["value"] if record else None,
        ceiling=record["ceiling"] if record else None,
        note="" if record else _why_not(records, target.model, target.workload),
    )


def _why_not(records: Sequence[Record], model: str, item: str) -> str:
    for record in records:
        is_it = record.get("item") == item and str(record.get("unit", "")).split(" ")[-1] == model
        if is_it and record["kind"] in (FAILED, SKIPPED):
            return "failed" if record["kind"] == FAILED else "skipped"
    return "not run"


def start_rows(records: Sequence[Record]) -> list[Row]:
    """Rows of the time from exec to the first token, for the starts that were measured."""
    targets = {one.model: one for one in START_TARGETS}
    rows = []
    for record in of_kind(records, "startup"):
        target = targets.get(record["model"], StartTarget(model=record["model"], peer_cold=0))
        is_cold, is_as_installed = record["how"] == "cold", record["how"] in ("cold", "warm")
        goal = target.goal_cold if is_cold else target.goal_warm
        rows.append(
            Row(
                model=record["model"],
                workload=f"start, {record['how']}",
                unit=SECONDS,
                value=record["first_token"],
                peer=(target.peer_cold or None) if is_cold else target.peer_warm,
                goal=goal if is_as_installed else None,
            )
        )
    return rows


def step_rows(records: Sequence[Record]) -> list[str]:
    """Host time and gaps of steady steps, in words, compared with their goals."""
    lines = []
    for one in of_kind(records, "host"):
        host = one["us"]["host"]
        verdict = "yes" if host["median"] < HOST_STEP_GOAL_US else "NO"
        parts = ", ".join(f"{name} {figures['median']}" for name, figures in one["us"].items())
        lines.append(
            f"{one['model']}, {one['workload']}: host {host['median']} us a step (mean "
            f"{host['mean']}, p99 {host['p99']}; goal under {HOST_STEP_GOAL_US:g} with 256 rows: "
            f"{verdict}); medians: {parts}"
        )
    for one in of_kind(records, "profile"):
        verdict = "yes" if one["gap_us"] < GAP_GOAL_US else "NO"
        kinds = ", ".join(f"{name} {us:.0f}" for name, us in list(one["kinds"].items())[:5])
        lines.append(
            f"{one['model']}, {one['workload']}, {one['window']} steps under the profiler: gap "
            f"between steps {one['gap_us']} us (p99 {one['gap_p99_us']}; goal under "
            f"{GAP_GOAL_US:g}: {verdict}), kernels {one['busy_us']} us of a period of "
            f"{one['period_us']}, {one['num_kernels']:g} kernels; {kinds}"
        )
    return lines


def check_lines(records: Sequence[Record]) -> list[str]:
    lines = []
    for one in of_kind(records, "check"):
        details = one.get("equal") or one.get("counts")
        lines.append(f"{'ok' if one['passed'] else 'FAIL'}: {one['what']}: {details}")
    for one in of_kind(records, "rounding"):
        lines.append(
            f"{one['what']}: {one['num_differing']} of {one['num_compared']} tokens differ, at "
            f"margins up to {max(one['margins'], default=0):.3f} (usual {one['usual_margin']:.3f});"
            f" {one['num_unexplained']} not explained by rounding"
        )
    for one in of_kind(records, "soak"):
        lines.append(
            f"{'ok' if one['passed'] else 'FAIL'}: soak of {one['what']}: {one['requests']} "
            f"requests, {one['preemptions']} preemptions, {one['num_problems']} wrong answers, "
            f"{one['blocks_lost']} blocks lost, growth {one['growth_mib']} MiB"
        )
    for one in of_kind(records, "experts"):
        lines.append(
            f"{one['model']}, {one['workload']}: a step touches {one['mean']:.1%} of the experts "
            f"({one['low']:.1%} to {one['high']:.1%}; {one['if_even']:.1%} if routed evenly)"
        )
    return lines


def feature_lines(records: Sequence[Record]) -> list[str]:
    """Throughput of requests that ask for more, relative to greedy ones, and memory in use."""
    lines = [
        f"{one['model']}, {one['what']}: {one['one']:.0%} with one such request of "
        f"{one['num_rows']}, {one['all']:.0%} with all"
        for one in of_kind(records, "feature")
    ]
    return lines + [
        f"{one['model']}, {one['when']}: {one['used']:.2%} of the GPU's memory in use, asked "
        f"{one['asked']:.0%}"
        for one in of_kind(records, "memory")
    ]


def trouble_lines(records: Sequence[Record]) -> list[str]:
    return [
        f"{one['kind']}: {one['unit']}, {one['item']}: {one.get('error') or one.get('reason')}"
        for one in records
        if one["kind"] in (FAILED, SKIPPED)
    ]


# -- as text ---------------------------------------------------------------------------------------


def text_table(rows: Sequence[Row]) -> str:
    lines = [HEADER, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 3 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def markdown_table(rows: Sequence[Row]) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cells)} |"

    return "\n".join(
        [line(HEADER), "|---|---|---|" + "--:|" * 7, *(line(row.cells()) for row in rows)]
    )


def machine_line(machine: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def full_text(records: Sequence[Record], rows: Sequence[Row], table: str) -> str:
    """The whole report around ``table``, which is plain text or Markdown."""
    parts = [table] if table else []
    for title, lines in (
        ("Steps", step_rows(records)),
        ("Checks", check_lines(records)),
        ("Features", feature_lines(records)),
        ("Not measured", trouble_lines(records)),
    ):
        if lines:
            parts.append(f"{title}:\n\n" + "\n".join(f"* {line}" for line in lines))
    judged = [row.met for row in rows if row.met is not None]
    if judged:
        parts.append(f"{sum(judged)} of {len(judged)} goals met by what was measured")
    return "\n\n".join(parts)


# -- files -----------------------------------------------------------------------------------------


def write_results(
    folder: Path, machine: dict[str, Any], records: Sequence[Record], rows: Sequence[Row]
) -> list[Path]:
    """results.json and results.md, and results.png where matplotlib is installed."""
    folder.mkdir(parents=True, exist_ok=True)
    table = [dict(zip(HEADER, row.cells(), strict=True)) for row in rows]
    results = {"machine": machine, "table": table, "records": list(records)}
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = full_text(records, rows, markdown_table(rows))
    (folder / "results.md").write_text(f"{machine_line(machine)}\n\n{text}\n", encoding="utf-8")
    files = [folder / "results.json", folder / "results.md"]
    plot = folder / "results.png"
    return [*files, plot] if write_plot(plot, rows) else files


def write_plot(file: Path, rows: Sequence[Row]) -> bool:
    """Plot the measured rows as bars relative to the peer, with marks for the ceilings; False if
    there is no plot, such as without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row.to_peer is not None]
    if not shown:
        return False
    ratios = [row.to_peer or 0.0 for row in shown]
    places = range(len(shown))
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.32 * len(shown)))
    axes.barh(places, ratios, color=["#888888" if row.is_short else "#2a7" for row in shown])
    for place, row, ratio in zip(places, shown, ratios, strict=True):
        if row.of_ceiling:
            axes.plot([ratio / row.of_ceiling] * 2, [place - 0.4, place + 0.4], color="black")
    axes.axvline(1.0, color="black", linewidth=0.8, linestyle="--")
    axes.set_yticks(places, [f"{row.model} {row.workload}" for row in shown])
    axes.invert_yaxis()
    limit = statistics.quantiles([*ratios, 2.0], n=20)[-1]
    axes.set_xlim(0, max(limit * 1.6, max(ratios) * 1.05))
    axes.set_xlabel(
        f"speed relative to {PEER} (dashed); black: this device's ceiling; grey: falls short"
    )
    figure.tight_layout()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)
    return True
