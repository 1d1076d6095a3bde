"""A picture of one measurement: how latencies are spread, and what ran when.

The only module that needs matplotlib.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from quire.bench.serving.measure import Measured

_BINS = 60
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44")


def check_plot(path: str) -> None:
    """``ValueError`` before the measurement instead of after it, if matplotlib is missing or does
    not write such files."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib; install it with: pip install 'quire[plot]'")
    bases: Any = importlib.import_module("matplotlib.backend_bases")
    kinds = bases.FigureCanvasBase.get_supported_filetypes()
    kind = Path(path).suffix[1:].lower()
    if kind and kind not in kinds:
        raise ValueError(
            f"--plot {path}: there are no pictures of kind .{kind}; give a name that ends in one "
            f"of {', '.join(sorted(kinds))}"
        )


def plot(measured: Sequence[Measured], path: str, title: str) -> None:
    """Draw the requests that succeeded."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("agg")
    figures: Any = importlib.import_module("matplotlib.figure")
    good = sorted((one for one in measured if one.ok), key=lambda one: one.started)
    figure = figures.Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle(title)
    (first, second), (third, fourth) = figure.subplots(2, 2)
    _histogram(first, [one.ttft * 1000 for one in good], "Time to first token (ms)", _COLOURS[0])
    itls = [itl * 1000 for one in good for itl in one.itls]
    _histogram(second, itls, "Inter-token latency (ms)", _COLOURS[1])
    _timeline(third, good)
    _running(fourth, good)
    figure.savefig(path, dpi=120)


def _histogram(axes: Any, values: list[float], label: str, colour: str) -> None:
    axes.hist(values, bins=_BINS, color=colour)
    axes.set_xlabel(label)
    axes.set_ylabel("count")
    if values and max(values) > 0:
        axes.set_yscale("symlog")  # a tail of a few must be seen beside thousands


def _timeline(axes: Any, measured: Sequence[Measured]) -> None:
    """One line a request: waiting, then writing."""
    began = measured[0].started if measured else 0.0
    starts = [one.started - began for one in measured]
    rows = range(len(measured))
    ttfts = [one.ttft for one in measured]
    firsts = [start + ttft for start, ttft in zip(starts, ttfts, strict=True)]
    writing = [one.e2el - one.ttft for one in measured]
    axes.barh(rows, ttfts, left=starts, height=1.0, color=_COLOURS[0], label="to first token")
    axes.barh(rows, writing, left=firsts, height=1.0, color=_COLOURS[2], label="to last token")
    axes.set_xlabel("seconds")
    axes.set_ylabel("request")
    axes.legend(loc="upper left")


def _running(axes: Any, measured: Sequence[Measured]) -> None:
    """How many requests run at each moment."""
    began = measured[0].started if measured else 0.0
    changes = [(one.started - began, 1) for one in measured]
    changes += [(one.started - began + one.e2el, -1) for one in measured]
    changes.sort()
    counts = list(accumulate(change for _, change in changes))
    axes.step([when for when, _ in changes], counts, where="post", color=_COLOURS[3])
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests at once")
    axes.set_ylim(bottom=0)
