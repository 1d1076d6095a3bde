"""Finds stop strings in a text that arrives in pieces. Knows nothing about tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence


class StopChecker:
    """Releases text once it can no longer be part of a stop string.

    The stop string that is complete first wins, of two that end together the longer one, so that
    the result does not depend on how the text was cut into pieces.
    """

    def __init__(self, stop: Sequence[str], include_stop_str: bool = False) -> None:
        self._stop = tuple(stop)
        self._include = include_stop_str
        self._longest = max(map(len, self._stop), default=0)
        self._firsts = frozenset(stop[:1] for stop in self._stop)
        self._held = ""

    def copy(self) -> StopChecker:
        """A checker in the same state."""
        return copy.copy(self)

    def feed(self, text: str) -> tuple[str, str | None]:
        """The text that is certain by now, and the stop string that was found after it, if any."""
        num_old = len(self._held)
        text = self._held + text
        found = [
            (start + len(stop), start, stop)
            for stop in self._stop
            if (start := text.find(stop, max(0, num_old + 1 - len(stop)))) >= 0
        ]
        if found:
            end, start, stop = min(found)
            self._held = ""
            return text[: end if self._include else start], stop
        return self._certain(text), None

    def pass_by(self, text: str) -> str:
        """As `feed`, for text in which no stop string may end; one that begins in it may end
        later."""
        return self._certain(self._held + text)

    def finish(self) -> str:
        """The text that is still held back."""
        rest, self._held = self._held, ""
        return rest

    def _certain(self, text: str) -> str:
        certain = self._first_possible_start(text)
        self._held = text[certain:]
        return text[:certain]

    def _first_possible_start(self, text: str) -> int:
        for start in range(max(0, len(text) - self._longest + 1), len(text)):
            if text[start] in self._firsts:
                end = text[start:]
                if any(stop.startswith(end) for stop in self._stop):
                    return start
        return len(text)
