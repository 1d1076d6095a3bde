"""Where a row stands before its answer: whether it thinks, and when the thought's end is forced.

    PERHAPS  ->  INSIDE  ->  OVER      the first tokens are a mark that begins a thought
    PERHAPS  ------------->  OVER      they are not: the answer has begun

Only what the row writes counts: whoever wrote the prompt has said how it ends. Knows nothing about
grammars.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from quire.structured import Thinking, TokenMark


class Place(Enum):
    PERHAPS = "perhaps"
    INSIDE = "inside"
    OVER = "over"


_AFTER_PROMPT = {True: Place.INSIDE, False: Place.OVER, None: Place.PERHAPS}  # by `is_open`


class ThinkingRow:
    """Of one row."""

    def __init__(self, thinking: Thinking, num_before: int = 0) -> None:
        """``num_before``: how many tokens may stand before a mark that begins a thought."""
        self.place = _AFTER_PROMPT[thinking.is_open]
        self._begins, self._ends = thinking.begins, thinking.ends
        self._budget = thinking.budget
        self._num_before = num_before
        self._num_tokens = 0  # in this place
        longest = max(map(len, (*self._begins, *self._ends)))
        self._written: deque[int] = deque(maxlen=longest)  # in this place, the last ones

    def accept(self, token_id: int) -> None:
        self._num_tokens += 1
        self._written.append(token_id)
        if self.place is Place.PERHAPS:
            self._accept_before(token_id)
        elif self._is_at_end_of_any(self._ends):
            self._enter(Place.OVER)

    @property
    def forced(self) -> int | None:
        """The only token that may be next, if there is but one."""
        is_used_up = self._budget is not None and self._num_tokens >= self._budget
        if self.place is not Place.INSIDE or not is_used_up:
            return None
        end = max(self._ends, key=self._num_matched)  # of equals the first
        return end[self._num_matched(end)][0]

    @property
    def beginning(self) -> list[int]:
        """The tokens that begin a thought, or go on with its mark."""
        if self.place is not Place.PERHAPS:
            return []
        found: list[int] = []
        for mark in self._begins:
            matched = self._num_matched(mark)
            if matched == self._num_tokens:
                found += mark[matched] if matched else mark[0][:1]
        return found

    def _accept_before(self, token_id: int) -> None:
        if self._is_at_end_of_any(self._begins):
            self._enter(Place.INSIDE)
        elif self._num_tokens - max(map(self._num_matched, self._begins)) > self._num_before:
            self._enter(Place.OVER)

    def _enter(self, place: Place) -> None:
        self.place = place
        self._num_tokens = 0
        self._written.clear()

    def _is_at_end_of_any(self, marks: tuple[TokenMark, ...]) -> bool:
        return any(self._num_matched(mark) == len(mark) for mark in marks)

    def _num_matched(self, mark: TokenMark) -> int:
        """How many places of the mark the text ends with."""
        written = list(self._written)
        for size in range(min(len(mark), len(written)), 0, -1):
            tail = written[-size:]
            if all(one in place for one, place in zip(tail, mark[:size], strict=True)):
                return size
        return 0
