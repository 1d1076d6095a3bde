"""One constrained row: its state in its grammar, what it may write next, and what that has cost.

Knows nothing about steps or requests.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from quire.step import JoinedRow
from quire.structured import GrammarState, token_bit
from quire.worker.thinking import Place, ThinkingRow

ALL = np.int32(-1)
MAX_ROW_S = 2.0  # that a row's grammar may take in slow steps, while other rows wait


class GrammarRow:
    """A row with a grammar, rules for its thinking, or both."""

    def __init__(self, joined: JoinedRow) -> None:
        constraint, sampling = joined.constraint, joined.sampling
        self.is_beam = joined.is_beam
        self.has_left = False
        self.error: str | None = None
        self.grammar = constraint.grammar
        self.state: GrammarState | None = self.grammar.new_state() if self.grammar else None
        self.stop_ids = sampling.stop_token_ids
        ends = (self.grammar.end_token_id, *self.grammar.other_ends) if self.grammar else ()
        self._has_own_stops = not set(self.stop_ids).issubset(ends)
        self._thinking = None
        if constraint.thinking is not None:
            self._thinking = ThinkingRow(
                constraint.thinking, constraint.tokens, is_strict=self.grammar is not None
            )
        self._min_tokens, self._ends_late = sampling.min_tokens, sampling.ends_late
        self._num_output = 0
        self._has_ended = False
        self._seconds = 0.0
        for token_id in joined.token_ids[joined.num_prompt_tokens :].tolist():
            self.accept(token_id)

    @property
    def _place(self) -> Place:
        return Place.OVER if self._thinking is None else self._thinking.place

    @property
    def is_masked(self) -> bool:
        """Whether some tokens are forbidden next."""
        if self._has_ended or self.error is not None:
            return False
        if self.grammar is None:
            return self._thinking is not None and self._thinking.forced is not None
        return True

    @property
    def followed(self) -> GrammarState | None:
        """The grammar's state that fills the row's mask; None inside a thought, and where only a
        thought may begin."""
        return None if self._place is Place.INSIDE else self.state

    @property
    def ends_by_grammar(self) -> bool:
        """Whether the grammar's mask needs no `finish` as long as it does not allow the end."""
        if self.grammar is None or self._place is not Place.OVER:
            return False
        is_early = self._ends_late or self._num_output < self._min_tokens
        return not (is_early and self._has_own_stops)

    def accept(self, token_id: int) -> None:
        """Take in the row's next token. Tokens after its end come from steps that were in flight,
        and are ignored."""
        if self._has_ended or self.error is not None:
            return
        self._num_output += 1
        place = self._place
        if token_id in self.stop_ids:
            self._has_ended = True
        elif place is not Place.OVER:
            self._think(place, token_id)
        elif self.state is not None and not self.state.accept(token_id):
            self._fail_at(token_id, self.state)

    def look_for_error(self) -> None:
        """Set the row's error if its grammar has met a limit while it filled the mask, which then
        allows nothing but the end, or if the mask allows nothing at all."""
        reason = self.state.error() if self.state is not None and self.error is None else None
        if reason is not None:
            self.error = f"the grammar {reason}"

    def spend(self, work: Callable[[], None]) -> None:
        """Run ``work`` and add its CPU time to the row's; past the limit the row has an error."""
        started = time.thread_time()
        work()
        self._seconds += time.thread_time() - started
        if self._seconds > MAX_ROW_S and self.error is None:
            self.error = (
                f"the grammar took more than {MAX_ROW_S:g} s to follow, which others wait for; "
                "make it simpler: rules that can read one text in many ways cost most"
            )

    def finish(self, line: np.ndarray) -> None:
        """Correct the grammar's mask ``line`` by what the grammar does not know: thinking, and the
        least length of the output."""
        if self._place is Place.INSIDE:
            self._finish_inside(line)
            return
        if self.state is None:  # the text so far can only be the beginning of a thought's mark
            line[:] = 0
        else:
            self._finish_answer(line)
        if self._thinking is not None:
            for token_id in self._thinking.beginning:
                _set(line, token_id)

    def _think(self, place: Place, token_id: int) -> None:
        """Take in a token of a thought, or of what may become one. Until that is known, the grammar
        takes the token, too, as long as it can."""
        assert self._thinking is not None
        self._thinking.accept(token_id)
        if self.grammar is None or place is Place.INSIDE:
            return
        if self._place is Place.INSIDE:
            self.state = self.grammar.new_state()
        elif self.state is None or not self.state.accept(token_id):
            if self._place is Place.OVER:
                self._fail_at(token_id, self.state)
            self.state = None

    def _fail_at(self, token_id: int, state: GrammarState | None) -> None:
        reason = None if state is None else state.error()
        self.error = (
            f"the grammar does not allow token {token_id}, which was sampled: this is an error of "
            "the engine"
            if reason is None
            else f"the grammar {reason}"
        )

    def _finish_inside(self, line: np.ndarray) -> None:
        assert self._thinking is not None
        forced = self._thinking.forced
        if forced is not None:
            line[:] = 0
            _set(line, forced)
        else:  # the grammar's text is still to come: the row must not end before
            line[:] = ALL
            self._forbid_stops(line)
            self._thinking.forbid_overruns(line)

    def _finish_answer(self, line: np.ndarray) -> None:
        assert self.grammar is not None
        end = self.grammar.end_token_id
        can_end = bool(line[end >> 5] & token_bit(end))
        _clear(line, end)
        if self._ends_late or self._num_output < self._min_tokens:
            self._forbid_stops(line)
            can_end = can_end and not line.any()  # nothing else is allowed, so it must end
        if can_end:
            for token_id in self.stop_ids:
                _set(line, token_id)

    def _forbid_stops(self, line: np.ndarray) -> None:
        for token_id in self.stop_ids:
            _clear(line, token_id)


def _set(line: np.ndarray, token_id: int) -> None:
    line[token_id >> 5] |= token_bit(token_id)


def _clear(line: np.ndarray, token_id: int) -> None:
    line[token_id >> 5] &= ~token_bit(token_id)
