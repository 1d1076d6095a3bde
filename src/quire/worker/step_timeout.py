"""Waits for a step, but not for ever: a step that hangs is logged, then ends the engine.

Knows nothing about how a step is computed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from quire.errors import EngineDeadError
from quire.step import StepPlan

logger = logging.getLogger(__name__)

SPIN_SECONDS = 1e-3  # after that, each sleep is a small share of the time waited so far
SLEEP_SHARE = 0.02
LONGEST_SLEEP_SECONDS = 0.05


class Event(Protocol):
    def query(self) -> bool:
        """Whether all that was enqueued before the event is done."""
        ...


@dataclass(kw_only=True, slots=True)
class StepLabel:
    """How a step is named in messages."""

    plan: StepPlan
    is_graph: bool = False  # set when it is known

    def __str__(self) -> str:
        how = "replayed from graphs" if self.is_graph else "computed by operation"
        rows, tokens = len(self.plan.rows), self.plan.num_tokens
        return f"step {self.plan.step_id} ({rows} rows, {tokens} tokens, {how})"


class StepTimeout:
    """Logs after ``timeout_s`` seconds and ends the engine after twice as many; 0: never."""

    def __init__(
        self,
        timeout_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._timeout_s = timeout_s or float("inf")
        self._clock = clock
        self._sleep = sleep

    def wait(self, event: Event, label: StepLabel) -> None:
        """Return when the event is done; ``label`` names its step."""
        if event.query():
            return
        start = self._clock()
        has_warned = False
        while not event.query():
            waited = self._clock() - start
            if waited >= self._timeout_s and not has_warned:
                logger.error("%s has run for %.0f s and is not done", label, waited)
                has_warned = True
            if waited >= 2 * self._timeout_s:
                raise EngineDeadError(
                    f"{label} was not done after {waited:.0f} s: the device hangs. "
                    "QUIRE_STEP_TIMEOUT sets how long is waited"
                )
            is_short = waited < SPIN_SECONDS
            self._sleep(0.0 if is_short else min(waited * SLEEP_SHARE, LONGEST_SLEEP_SECONDS))
