"""Estimates how long the device has work, from how long similar steps took lately.

The later a step is planned, the more newly arrived requests it includes; planned too late, it
leaves the device idle.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from quire.step import StepPlan

# A plan must be ready this long before the device needs it: the host plans, uploads and launches,
# and steps vary.
MARGIN_S = 0.0015
MARGIN_SHARE = 0.05
_NUM_LAST = 2  # last steps of a kind; the shorter counts, the other had a hiccup
# A step that was done before the host looked took less than it seems: at most this share of what
# was expected.
_LATE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class _InFlight:
    last: deque[float]  # seconds that a part of such steps took
    num_parts: int  # its tokens; 1 for a decode step
    submitted_at: float


class StepClock:
    """Told of every step that the device gets and that it has done, in order."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._last: dict[tuple[bool, int], deque[float]] = {}  # by kind of step
        self._in_flight: deque[_InFlight] = deque()
        self._done_at = 0.0

    def submitted(self, plan: StepPlan) -> None:
        kind = (plan.is_decode, plan.num_tokens.bit_length())
        last = self._last.setdefault(kind, deque(maxlen=_NUM_LAST))
        num_parts = 1 if plan.is_decode else max(1, plan.num_tokens)
        self._in_flight.append(_InFlight(last, num_parts, self._now()))

    def done(self, *, is_late: bool) -> None:
        """The host has the result of the oldest step; ``is_late``: the device had it some time
        before."""
        step, now = self._in_flight.popleft(), self._now()
        took = (now - max(self._done_at, step.submitted_at)) / step.num_parts
        if not is_late:
            step.last.append(took)
        elif step.last:
            step.last.append(min(took, _LATE_SHARE * min(step.last)))
        self._done_at = now

    def forget(self) -> None:
        """Drop the steps in flight: they have failed."""
        self._in_flight.clear()

    def seconds_to_spare(self) -> float:
        """How long the next plan can wait; 0 where that is not known."""
        end = 0.0
        for step in self._in_flight:
            if len(step.last) < _NUM_LAST:
                return 0.0
            begin = max(end, self._done_at, step.submitted_at)
            end = begin + min(step.last) * step.num_parts * (1 - MARGIN_SHARE)
        return max(0.0, end - self._now() - MARGIN_S)
