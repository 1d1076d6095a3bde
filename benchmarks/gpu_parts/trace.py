"""Summarises a profiler's trace of engine steps: time by kernel, gaps within and between steps.

Reads the JSON of a Chrome trace as torch writes it. Device work belongs to the step in whose
submission (marked `STEP_MARK`) it was launched; launch and work share a correlation number. Knows
nothing about engines, and needs no GPU.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

import numpy as np

STEP_MARK = "quire.step"
LAUNCH_CATEGORIES = ("cuda_runtime", "cuda_driver")
# Kind of a kernel -> pattern; the first that is found in its name decides.
KINDS = {
    "experts": r"moe|expert|grouped|gate_up_|down_(lines|tiles)|softmax_top_k|add_sums|^_sort_",
    "attention": r"attention|attn|flash|fmha|xqa|^_(prefix|latent)_",
    "sampling": (
        r"argmax|sample|gumbel|softmax|top_?k|sort|multinomial|penal"
        r"|^_(parts|bracket|narrow|finish|count)_"
    ),
    "products": r"gemm|gemv|nvjet|cutlass|cublas|splitk|xmma|matmul|^(product|best_column)$",
    "positions and KV": r"rope|rotary|write_kv|heads|angles",
    "norms": r"norm",
    "activation": r"silu|gelu|activation|gated",
    "rows": (
        r"lookup|prompt_tiles|fetch|deliver|gather|index|row|copy|cat|fill|elementwise|advance"
        r"|upload"
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelTime:
    name: str
    us: float  # per step, without overlap with earlier kernels
    count: float  # per step
    share: float  # of all kernels' time


@dataclass(frozen=True, kw_only=True, slots=True)
class TraceSummary:
    """Medians over the steps in the trace, in microseconds."""

    num_steps: int
    period_us: float  # from a step's first kernel to the next step's
    busy_us: float  # while at least one kernel runs
    idle_in_step_us: float  # between kernels of a step
    gap_us: float  # from the last kernel of a step to the first of the next
    gap_mean_us: float
    gap_p99_us: float
    num_kernels: float
    launches: dict[str, float]  # host call that puts work on the device -> calls per step
    launch_us: dict[str, float]  # such calls and events -> host's us per step
    kernels: list[KernelTime]  # the longest
    kinds: dict[str, float]  # kind of kernel -> us per step

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The summary as lines for a terminal."""
        launches = ", ".join(f"{count:g} {name}" for name, count in self.launches.items())
        kinds = ", ".join(f"{name} {us:.0f}" for name, us in self.kinds.items())
        calls = ", ".join(f"{name} {us:.1f}" for name, us in self.launch_us.items())
        return [
            f"{self.num_steps} steps: a step every {self.period_us:.0f} us, kernels run "
            f"{self.busy_us:.0f}, gaps between kernels {self.idle_in_step_us:.0f}, gap between "
            f"steps {self.gap_us:.1f} (mean {self.gap_mean_us:.1f}, p99 {self.gap_p99_us:.1f})",
            f"a step has {self.num_kernels:g} kernels, launched by {launches}",
            f"us of the host, under the profiler: {calls}",
            f"us by kind: {kinds}",
            *(
                f"{one.us:9.1f} us {one.share:5.1%} {one.count:6.1f} x {one.name}"
                for one in self.kernels
            ),
        ]


@dataclass(slots=True)
class _Step:
    kernels: list[tuple[float, float, str]] = field(default_factory=list)  # start, end, name

    @property
    def start(self) -> float:
        return self.kernels[0][0]

    @property
    def end(self) -> float:
        return max(end for _, end, _ in self.kernels)

    @property
    def busy(self) -> float:
        """Length of the union: kernels may overlap."""
        return sum(us for _, us in self.shares())

    def shares(self) -> Iterator[tuple[str, float]]:
        """Yield (name, us) of each kernel, counted from the end of those before it: a kernel that
        begins earlier mostly waits until then."""
        reached = float("-inf")
        for start, end, name in self.kernels:
            yield name, max(0.0, end - max(start, reached))
            reached = max(reached, end)


def summarise(trace: dict[str, Any], *, top: int = 8) -> TraceSummary:
    """Medians over all steps but the first and last, which may be cut off; ``ValueError`` if fewer
    than two are left. ``top``: how many kernels to list."""
    events = [one for one in trace["traceEvents"] if one.get("ph") == "X"]
    marks = sorted(
        (one["ts"], one["ts"] + one["dur"])
        for one in events
        if one["name"] == STEP_MARK and one.get("cat") == "user_annotation"
    )
    launches = [one for one in events if one.get("cat") in LAUNCH_CATEGORIES]
    step_of_launch = {
        _correlation(one): _mark_at(marks, one["ts"]) for one in launches if _correlation(one)
    }
    steps: dict[int, _Step] = defaultdict(_Step)
    for one in sorted(events, key=lambda one: float(one["ts"])):
        if one.get("cat") == "kernel":
            number = step_of_launch.get(_correlation(one))
            if number is not None:
                steps[number].kernels.append((one["ts"], one["ts"] + one["dur"], one["name"]))
    whole = [steps[number] for number in sorted(steps)[1:-1]]
    if len(whole) < 2:
        raise ValueError(f"the trace has {len(steps)} steps with kernels; it takes at least 4")
    calls = [one for one in launches if _mark_at(marks, one["ts"]) is not None]
    return _summary(whole, _launches(calls, len(marks)), _launch_us(calls, len(marks)), top)


def _correlation(event: dict[str, Any]) -> int:
    """The event's correlation number; 0 if it has none."""
    return int(event.get("args", {}).get("correlation", 0))


def _mark_at(marks: Sequence[tuple[float, float]], ts: float) -> int | None:
    """Index of the submission during which ``ts`` falls; None if there is none."""
    number = bisect.bisect_right(marks, (ts, float("inf"))) - 1
    return number if number >= 0 and ts <= marks[number][1] else None


def _launches(calls: Sequence[dict[str, Any]], num_steps: int) -> dict[str, float]:
    counts = Counter(str(one["name"]) for one in calls)
    puts_work = re.compile(r"launch|memcpy|memset", re.IGNORECASE)
    return {
        name: round(count / num_steps, 2)
        for name, count in counts.most_common()
        if puts_work.search(name)
    }


def _launch_us(calls: Sequence[dict[str, Any]], num_steps: int) -> dict[str, float]:
    """Host microseconds per step by call, longest first, without those below 0.1."""
    total: Counter[str] = Counter()
    for one in calls:
        total[str(one["name"])] += one["dur"]
    return {
        name: round(us / num_steps, 1) for name, us in total.most_common() if us >= num_steps / 10
    }


def _summary(
    steps: list[_Step], launches: dict[str, float], launch_us: dict[str, float], top: int
) -> TraceSummary:
    gaps = [after.start - before.end for before, after in itertools.pairwise(steps)]
    periods = [after.start - before.start for before, after in itertools.pairwise(steps)]
    kernels = _by_name(steps)
    kinds: dict[str, float] = defaultdict(float)
    for one in kernels:
        kinds[kind_of(one.name)] += one.us
    return TraceSummary(
        num_steps=len(steps),
        period_us=round(median(periods), 1),
        busy_us=round(median(step.busy for step in steps), 1),
        idle_in_step_us=round(median(step.end - step.start - step.busy for step in steps), 1),
        gap_us=round(median(gaps), 1),
        gap_mean_us=round(float(np.mean(gaps)), 1),
        gap_p99_us=round(float(np.percentile(gaps, 99)), 1),
        num_kernels=median(len(step.kernels) for step in steps),
        launches=launches,
        launch_us=launch_us,
        kernels=kernels[:top],
        kinds={name: round(us, 1) for name, us in sorted(kinds.items(), key=lambda x: -x[1])},
    )


def _by_name(steps: Iterable[_Step]) -> list[KernelTime]:
    """Kernel times by short name, longest first."""
    us: dict[str, float] = defaultdict(float)
    counts: Counter[str] = Counter()
    num_steps = 0
    for step in steps:
        num_steps += 1
        for name, time in step.shares():
            us[short_name(name)] += time
            counts[short_name(name)] += 1
    total = sum(us.values())
    return [
        KernelTime(
            name=name,
            us=round(time / num_steps, 2),
            count=round(counts[name] / num_steps, 2),
            share=round(time / total, 4),
        )
        for name, time in sorted(us.items(), key=lambda item: -item[1])
    ]


def short_name(name: str) -> str:
    """A kernel's name without return type, namespaces and template arguments, except a functor."""
    plain = name.removeprefix("void ").split("(")[0]
    functor = re.search(r"(\w+?)(?:Functor|_kernel_cuda|Op)\b", plain.partition("<")[2])
    plain = plain.split("<")[0].split("::")[-1]
    return f"{plain}<{functor[1]}>"[:64] if functor else plain[:64]


def kind_of(name: str) -> str:
    lowered = name.lower()
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, lowered)), "other")
