"""Where a row stands before its answer: whether it thinks, and when the thought's end is forced.

    PERHAPS  ->  INSIDE  ->  OVER      the text begins with a mark that begins a thought
    PERHAPS  ------------->  OVER      it does not: the answer has begun

Marks are found in the text, as whoever reads the answer finds them: a model may spell them with any
tokens. Where no grammar waits behind them, marks that are tokens of their own are found by these,
and nobody needs to know the vocabulary's texts. Only what the row writes counts: whoever wrote the
prompt has said how it ends. Knows nothing about grammars.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from enum import Enum

import numpy as np

from quire.structured import Thinking, TokenBytes, TokenMark

_SPACE = b" \t\r\n"


class Place(Enum):
    PERHAPS = "perhaps"
    INSIDE = "inside"
    OVER = "over"


_AFTER_PROMPT = {True: Place.INSIDE, False: Place.OVER, None: Place.PERHAPS}  # by `is_open`


class ThinkingRow:
    """Of one row."""

    def __init__(self, thinking: Thinking, tokens: TokenBytes, *, is_strict: bool) -> None:
        """``is_strict``: a grammar waits for the answer. An end must not be missed, however it is
        spelled, and what may be a thought without a token is none."""
        self.place = _AFTER_PROMPT[thinking.is_open]
        if is_strict and self.place is Place.PERHAPS and thinking.budget == 0:
            self.place = Place.OVER
        self._begins, self._ends = thinking.begins, thinking.ends
        self._budget = thinking.budget
        self._tokens = tokens
        marks = (*self._begins, *self._ends)
        self._added = dict(one for mark in marks for one in mark.added)
        reads = is_strict or not all(mark.is_token for mark in self._ends)
        self._end_texts = tuple(mark.text for mark in self._ends) if reads else ()
        self._num_kept = max(map(len, self._end_texts), default=0)
        # In this place:
        self._num_tokens = 0
        self._written: deque[int] = deque(maxlen=max(len(mark.token_ids) for mark in marks))
        self._text = b""  # its end, and only where it matters

    def accept(self, token_id: int) -> None:
        self._num_tokens += 1
        self._written.append(token_id)
        if self.place is Place.PERHAPS:
            self._accept_before(token_id)
        else:
            self._accept_inside(token_id)

    @property
    def forced(self) -> int | None:
        """The only token that may be next, if there is but one."""
        is_used_up = self._budget is not None and self._num_tokens >= self._budget
        if self.place is not Place.INSIDE or not is_used_up:
            return None
        end = max(self._ends, key=self._num_matched)  # of equals the first
        return end.token_ids[self._num_matched(end)]

    @property
    def beginning(self) -> list[int]:
        """The tokens that begin a thought, or go on with its mark."""
        if self.place is not Place.PERHAPS:
            return []
        num = self._num_tokens
        return [mark.token_ids[num] for mark in self._begins if self._num_matched(mark) == num]

    def forbid_overruns(self, line: np.ndarray) -> None:
        """Clear the bits of tokens that would end the thought and go on with what is the answer's:
        a grammar begins with the next token."""
        for end in self._end_texts:
            for num_written in _nums_written(self._text, end):
                mask = self._tokens.overruns(end, num_written)
                if mask is not None:
                    line &= ~mask

    def _accept_before(self, token_id: int) -> None:
        self._text = text = (self._text + self._bytes_of(token_id)).lstrip(_SPACE)
        begins = [mark.text for mark in self._begins]
        found = next((begin for begin in begins if text.startswith(begin)), None)
        if found is not None:
            self._enter(Place.INSIDE)
            self._look_for_end(text[len(found) :])
        elif not any(begin.startswith(text) for begin in begins):
            self._enter(Place.OVER)

    def _accept_inside(self, token_id: int) -> None:
        if any(self._is_written(mark) for mark in self._ends):
            self._enter(Place.OVER)
        elif self._end_texts:
            self._look_for_end(self._bytes_of(token_id))

    def _look_for_end(self, new: bytes) -> None:
        text = self._text + new
        self._text = text[-self._num_kept :]
        if any(end in text for end in self._end_texts):
            self._enter(Place.OVER)

    def _enter(self, place: Place) -> None:
        self.place = place
        self._num_tokens = 0
        self._written.clear()
        self._text = b""

    def _bytes_of(self, token_id: int) -> bytes:
        added = self._added.get(token_id)
        return self._tokens[token_id] if added is None else added

    def _is_written(self, mark: TokenMark) -> bool:
        is_last = self._written[-1] == mark.token_ids[-1]
        return is_last and self._num_matched(mark) == len(mark.token_ids)

    def _num_matched(self, mark: TokenMark) -> int:
        """How many tokens of the mark, as a tokenizer writes it, the row has written last."""
        written, token_ids = tuple(self._written), mark.token_ids
        most = min(len(token_ids), len(written))
        return next(n for n in range(most, -1, -1) if written[len(written) - n :] == token_ids[:n])


def _nums_written(text: bytes, mark: bytes) -> Iterator[int]:
    """How many bytes of the mark the text may end with; it may always be none."""
    start = text.find(mark[:1])
    while start >= 0:
        if mark.startswith(text[start:]):
            yield len(text) - start
        start = text.find(mark[:1], start + 1)
    yield 0
