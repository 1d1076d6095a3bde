"""Progress of an engine's start: written by the starting thread, read and cancelled by others.

Knows nothing about what the phases do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class StartWatch:
    """Follows one start; all methods may be called from any thread."""

    def __init__(self, on_phase: Callable[[str], None] = lambda phase: None) -> None:
        self._on_phase = on_phase
        self._lock = threading.Lock()
        self._began: list[tuple[str, float]] = []
        self._kill: Callable[[], None] | None = None
        self._is_cancelled = False

    def enter(self, phase: str) -> None:
        """A phase begins, and the one before it is over."""
        with self._lock:
            self._began.append((phase, time.monotonic()))
        self._on_phase(phase)

    def can_be_ended_by(self, kill: Callable[[], None]) -> None:
        """From now on `cancel` calls ``kill``, which makes the waiting starter fail."""
        with self._lock:
            self._kill = kill
            is_late = self._is_cancelled
        if is_late:
            kill()

    def has_ended(self) -> None:
        """The start is complete: `cancel` no longer has an effect."""
        with self._lock:
            self._kill = None

    def cancel(self) -> None:
        """Cancel the start as soon as possible, unless it is complete."""
        with self._lock:
            self._is_cancelled = True
            kill = self._kill
        if kill is not None:
            kill()

    @property
    def phase(self) -> str | None:
        """The phase that runs; None before the first."""
        with self._lock:
            return self._began[-1][0] if self._began else None

    def phase_seconds(self) -> dict[str, float]:
        """Phase -> seconds, of the running one so far."""
        with self._lock:
            began = list(self._began)
        ends = [*(when for _, when in began[1:]), time.monotonic()]
        return {name: end - when for (name, when), end in zip(began, ends, strict=False)}
