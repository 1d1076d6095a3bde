"""Retrial: the completions of a step that failed are run again, one at a time.

::

    failed step: a b c d      then steps of     a     b     c     d     then all that wait
                                                confirms a token: acquitted
                                                      breaks its step: ended with an error

Only says whose turn it is. Knows nothing about rows and blocks.
"""

from __future__ import annotations

from collections.abc import Iterable

from quire.scheduler.completion import Completion


class Retrial:
    """The suspects in the order of their turns; while there are any, no other completion runs."""

    def __init__(self) -> None:
        self._suspects: dict[Completion, None] = {}

    def __len__(self) -> int:
        return len(self._suspects)

    def __contains__(self, completion: Completion) -> bool:
        return completion in self._suspects

    @property
    def next(self) -> Completion | None:
        """The suspect whose turn it is."""
        return next(iter(self._suspects), None)

    def begin(self, completions: Iterable[Completion]) -> None:
        """Suspect ``completions``, whose step failed. During a retrial the step was that of one
        suspect alone, and there are no new ones."""
        if not self._suspects:
            self._suspects = dict.fromkeys(completions)

    def discard(self, completion: Completion) -> None:
        """Remove a completion that was acquitted, or ended for any reason."""
        self._suspects.pop(completion, None)
