"""Retrial: the completions of a step that failed are tried again, one at a time.

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
    """The suspects, in the order in which they are tried; nobody else runs while there are any."""

    def __init__(self) -> None:
        self._suspects: dict[Completion, None] = {}

    def __len__(self) -> int:
        return len(self._suspects)

    def __contains__(self, completion: Completion) -> bool:
        return completion in self._suspects

    @property
    def next(self) -> Completion | None:
        """Whose turn it is."""
        return next(iter(self._suspects), None)

    def begin(self, completions: Iterable[Completion]) -> None:
        """A step of ``completions`` failed. Amid a retrial it was of one suspect alone, and makes
        nobody else suspect."""
        if not self._suspects:
            self._suspects = dict.fromkeys(completions)

    def discard(self, completion: Completion) -> None:
        """Acquitted, or ended for whatever reason; others keep their turns."""
        self._suspects.pop(completion, None)
