"""What is measured: rows in the order of their importance, with the peer's figures and the goals.

The peer is vLLM 0.26.0 with torch 2.11 on one NVIDIA H200: the same token ids, dummy weights of the
same configs, bf16, greedy, EOS ignored; measured once, on another day than Quire's figures. Goals
are those of the design of Quire's step. Knows nothing about how anything is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.bench.standard_workloads import Workload

PEER = "vLLM 0.26"

TOKENS_OUT, TOKENS_IN, SECONDS = "tok/s", "tok/s in", "s"
UNITS = {"prefill": TOKENS_IN, "prefix": SECONDS, "long": SECONDS}  # the others: TOKENS_OUT


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One row of the table."""

    model: str
    workload: str
    peer: float | None = None  # in the row's unit
    goal: float | None = None

    @property
    def unit(self) -> str:
        return UNITS.get(self.workload, TOKENS_OUT)

    @property
    def mark(self) -> float | None:
        """The figure that the row is judged by: the goal, or else the peer's."""
        return self.peer if self.goal is None else self.goal

    def value(self, workload: Workload, seconds: float) -> float:
        """Convert seconds to the row's unit, and also a value in that unit to seconds."""
        if self.unit == SECONDS:
            return seconds
        is_in = self.unit == TOKENS_IN
        return (workload.num_prompt_tokens if is_in else workload.num_output_tokens) / seconds

    def reaches(self, value: float, mark: float) -> bool:
        return value <= mark if self.unit == SECONDS else value >= mark

    def peer_s(self, workload: Workload) -> float:
        """About how long one run takes: the peer's seconds, or a guess of 2."""
        return 2.0 if self.peer is None else self.value(workload, self.peer)


def _rows(model: str, figures: dict[str, tuple[float | None, float | None]]) -> tuple[Target, ...]:
    return tuple(
        Target(model=model, workload=workload, peer=peer, goal=goal)
        for workload, (peer, goal) in figures.items()
    )


SMALL, DENSE, SPARSE = "qwen3-0.6b", "llama-3.1-8b", "qwen3-30b-a3b"
TARGETS: tuple[Target, ...] = (
    *_rows(
        SMALL,
        {
            "single": (609, 1_500),
            "decode256": (55_900, 100_000),
            "nano": (25_850, 30_500),
            "prefix": (0.94, None),
            "prefill": (348_000, None),
            "long": (2.44, None),
            "decode64": (27_530, None),
            "decode8": (5_065, None),
        },
    ),
    *_rows(
        DENSE,
        {
            "single": (206, 245),
            "decode256": (21_410, 26_000),
            "prefix": (1.80, 1.3),
            "prefill": (41_200, 41_500),
            "long": (9.36, 9.0),
            "nano": (10_650, 11_600),
            "decode64": (10_230, None),
            "decode8": (1_590, None),
        },
    ),
    *_rows(
        SPARSE,
        {
            "single": (239, 400),
            "decode256": (11_520, 13_500),
            "decode64": (3_570, None),
            "nano": (6_435, None),
        },
    ),
    *_rows(SMALL, {"decode1024": (50_700, None)}),
    *_rows("tiny", dict.fromkeys(("single", "decode8", "nano"), (None, None))),
)
HOST_STEP_GOAL_US = 150.0  # of the core's thread, steady decode of 256 requests
GAP_GOAL_US = 20.0  # on the GPU, between two of its steps


@dataclass(frozen=True, kw_only=True, slots=True)
class StartTarget:
    """Seconds from exec to the first token."""

    model: str
    peer_cold: float
    peer_warm: float | None = None
    goal_cold: float | None = None
    goal_warm: float | None = None


START_TARGETS: tuple[StartTarget, ...] = (
    StartTarget(model=SMALL, peer_cold=115, peer_warm=30, goal_cold=12, goal_warm=6),
    StartTarget(model=DENSE, peer_cold=53, goal_cold=18, goal_warm=12),
    StartTarget(model=SPARSE, peer_cold=83),
)


def target_of(model: str, workload: str) -> Target:
    """The row of `TARGETS`, or one without peer and goal."""
    known = (one for one in TARGETS if (one.model, one.workload) == (model, workload))
    return next(known, Target(model=model, workload=workload))
