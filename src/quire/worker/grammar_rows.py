"""Grammar rows: how far each constrained row has come, and what it may write next.

Tokens are taken in as the host learns of them: those of the steps before, when masks are asked for.
By then this step's forward has been launched, so the device has work while the host waits and
fills. Knows nothing about how masks reach the logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from quire.step import Int32, JoinedRow, RowToken
from quire.structured import FREE, GrammarState
from quire.worker.pending import HostTokens
from quire.worker.thinking import ThinkingRow
from quire.worker.watch import StepLabel, Watch

ALL = np.int32(-1)


@dataclass(frozen=True, slots=True)
class _Unread:
    """Tokens of a step, and whose they are."""

    owners: list[tuple[_Row, int]]  # and the place of its token
    tokens: HostTokens
    label: StepLabel


class GrammarRows:
    """Of all rows; rows without a constraint cost a look at one array."""

    def __init__(self, *, max_rows: int, vocab_size: int, watch: Watch) -> None:
        self.num_words = -(-vocab_size // 32)
        self._watch = watch
        self._rows: dict[int, _Row] = {}
        self._is_constrained = np.zeros(max_rows + 1, dtype=np.bool_)
        self._unread: list[_Unread] = []

    def join(self, joined: Iterable[JoinedRow]) -> None:
        for new in joined:
            if new.constraint is not FREE:
                self._rows[new.row] = _Row(new)
                self._is_constrained[new.row] = True

    def leave(self, row: int) -> None:
        old = self._rows.pop(row, None)
        if old is not None:
            old.has_left = True
            self._is_constrained[row] = False

    def put(self, tokens: Iterable[RowToken]) -> None:
        """Tokens that the host chose."""
        for one in tokens:
            if one.row in self._rows:
                self._rows[one.row].accept(one.token_id)

    def are_among(self, rows_cpu: np.ndarray) -> bool:
        return bool(self._rows) and bool(self._is_constrained[rows_cpu].any())

    def follow(self, rows_cpu: np.ndarray, tokens: HostTokens, label: StepLabel) -> None:
        """A step was enqueued that samples ``tokens`` for these rows."""
        if not self._rows:
            return
        places = np.flatnonzero(self._is_constrained[rows_cpu]).tolist()
        owners = [(self._rows[int(rows_cpu[place])], place) for place in places]
        owners = [one for one in owners if not one[0].is_beam]
        if owners:
            self._unread.append(_Unread(owners, tokens, label))

    def fill(self, rows_cpu: Int32, masks: np.ndarray) -> np.ndarray:
        """What the constrained ones among these rows [S] may write: places [N] among them, and as
        many lines of ``masks`` [.., words] int32. Waits for the steps before."""
        self._take_in()
        places, states = [], []
        for place in np.flatnonzero(self._is_constrained[rows_cpu]).tolist():
            row = self._rows[int(rows_cpu[place])]
            if row.is_masked:
                places.append(place)
                states.append(row)
        lines = masks[: len(places)]
        _fill_states(states, lines)
        for row, line in zip(states, lines, strict=True):
            row.finish(line)
        return np.array(places, dtype=np.int64)

    def errors(self, rows_cpu: Int32) -> dict[int, str]:
        """Rows whose last token no grammar allowed."""
        rows = [int(row) for row in rows_cpu[self._is_constrained[rows_cpu]]]
        return {row: error for row in rows if (error := self._rows[row].error) is not None}

    def _take_in(self) -> None:
        unread, self._unread = self._unread, []
        for one in unread:
            if all(row.has_left for row, _ in one.owners):
                continue  # and the step may have failed
            tokens = one.tokens.read(self._watch, one.label)
            for row, place in one.owners:
                row.accept(int(tokens[place]))


class _Row:
    """One constrained row."""

    def __init__(self, joined: JoinedRow) -> None:
        constraint, sampling = joined.constraint, joined.sampling
        self.is_beam = joined.is_beam
        self.has_left = False
        self.error: str | None = None
        self.grammar = constraint.grammar
        self.state: GrammarState | None = self.grammar.new_state() if self.grammar else None
        prompt = joined.token_ids[: joined.num_prompt_tokens].tolist()
        self.thinking = ThinkingRow(constraint.thinking, prompt) if constraint.thinking else None
        self._stop_ids = sampling.stop_token_ids
        self._min_tokens, self._ends_late = sampling.min_tokens, sampling.ends_late
        self._num_output = 0
        self._has_ended = False
        for token_id in joined.token_ids[joined.num_prompt_tokens :].tolist():
            self.accept(token_id)

    @property
    def is_masked(self) -> bool:
        """Whether not every token may be next."""
        if self._has_ended or self.error is not None:
            return False
        is_thinking = self.thinking is not None and not self.thinking.is_over
        if is_thinking and self.state is None:
            assert self.thinking is not None
            return self.thinking.forced is not None
        return is_thinking or self.state is not None

    @property
    def follows_grammar(self) -> bool:
        return self.state is not None and (self.thinking is None or self.thinking.is_over)

    def accept(self, token_id: int) -> None:
        """Tokens after an end are of steps that were in flight, and nobody's."""
        if self._has_ended or self.error is not None:
            return
        self._num_output += 1
        if token_id in self._stop_ids:
            self._has_ended = True
        elif self.thinking is not None and not self.thinking.is_over:
            self.thinking.accept(token_id)
        elif self.state is not None and not self.state.accept(token_id):
            self.error = (
                f"the grammar does not allow token {token_id}, which was sampled: this is an error "
                "of the engine"
            )

    def finish(self, line: np.ndarray) -> None:
        """What the grammar does not know: thinking, and which tokens end the row."""
        if not self.follows_grammar:
            assert self.thinking is not None
            forced = self.thinking.forced
            if forced is not None:
                line[:] = 0
                _set(line, forced)
            else:  # a grammar is to come: the row must not end before
                line[:] = ALL
                self._forbid_stops(line)
            return
        assert self.grammar is not None
        end = self.grammar.end_token_id
        is_early = self._ends_late or self._num_output < self._min_tokens
        if not is_early and self._stop_ids == (end,):
            return
        can_end = _has(line, end)
        _clear(line, end)
        if is_early:
            self._forbid_stops(line)
            can_end = can_end and not line.any()  # complete: then it must
        if can_end:
            for token_id in self._stop_ids:
                _set(line, token_id)

    def _forbid_stops(self, line: np.ndarray) -> None:
        for token_id in self._stop_ids:
            _clear(line, token_id)


def _fill_states(rows: Sequence[_Row], lines: np.ndarray) -> None:
    """By kinds of grammars; usually all rows are of one."""
    kinds: dict[type, list[int]] = {}
    for i, row in enumerate(rows):
        if row.follows_grammar:
            kinds.setdefault(type(row.grammar), []).append(i)
    for places in kinds.values():
        states = [rows[i].state for i in places]
        grammar = rows[places[0]].grammar
        assert grammar is not None
        known = [state for state in states if state is not None]
        if len(places) == len(rows):
            grammar.fill_all(known, lines)
        else:
            part = np.empty((len(places), lines.shape[1]), dtype=np.int32)
            grammar.fill_all(known, part)
            lines[places] = part


def _bit(token_id: int) -> np.int32:
    return np.uint32(1 << (token_id & 31)).view(np.int32)


def _has(line: np.ndarray, token_id: int) -> bool:
    return bool(line[token_id >> 5] & _bit(token_id))


def _set(line: np.ndarray, token_id: int) -> None:
    line[token_id >> 5] |= _bit(token_id)


def _clear(line: np.ndarray, token_id: int) -> None:
    line[token_id >> 5] &= ~_bit(token_id)
