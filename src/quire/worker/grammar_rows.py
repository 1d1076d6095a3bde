"""Grammar rows: the state of every constrained row, and the masks of what they may write next.

When a step's masks are asked for, the tokens of the steps before are read. By then the step's
forward has been launched, so the device has work while the host waits and fills masks. Knows
nothing about how masks reach the logits.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import compress

import numpy as np

from quire.step import Int32, JoinedRow, Refusal, RowToken
from quire.structured import FREE, Grammar, GrammarState, token_bit
from quire.worker.grammar_row import GrammarRow
from quire.worker.pending import HostTokens
from quire.worker.step_timeout import StepLabel, StepTimeout

# After a step whose grammars took longer, the time of each row is measured: an ambiguous grammar
# can take a second for one token, while all other rows wait.
SLOW_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class _Unread:
    """The tokens of a step that the host has not read, and the constrained rows among theirs."""

    owners: list[tuple[GrammarRow, int]]  # (row, index of its token)
    tokens: HostTokens
    label: StepLabel


class GrammarRows:
    """The constrained rows; other rows only cost a look at one array."""

    def __init__(self, *, max_rows: int, vocab_size: int, timeout: StepTimeout) -> None:
        self.num_words = -(-vocab_size // 32)
        self._timeout = timeout
        self._rows: dict[int, GrammarRow] = {}
        self._is_constrained = np.zeros(max_rows + 1, dtype=np.bool_)
        self._unread: list[_Unread] = []
        self._is_measured = False  # true after a slow step

    def join(self, joined: Iterable[JoinedRow]) -> None:
        for new in joined:
            if new.constraint is not FREE:
                self._rows[new.row] = GrammarRow(new)
                self._is_constrained[new.row] = True

    def leave(self, row: int) -> None:
        old = self._rows.pop(row, None)
        if old is not None:
            old.has_left = True
            self._is_constrained[row] = False

    def put(self, tokens: Iterable[RowToken]) -> None:
        """Take in tokens that the host chose, for beams."""
        for one in tokens:
            if one.row in self._rows:
                self._rows[one.row].accept(one.token_id)

    def are_among(self, rows_cpu: np.ndarray) -> bool:
        return bool(self._rows) and bool(self._is_constrained[rows_cpu].any())

    def follow(self, rows_cpu: np.ndarray, tokens: HostTokens, label: StepLabel) -> None:
        """Note that an enqueued step samples ``tokens`` for these rows."""
        if not self._rows:
            return
        places = np.flatnonzero(self._is_constrained[rows_cpu]).tolist()
        owners = [(self._rows[int(rows_cpu[place])], place) for place in places]
        owners = [one for one in owners if not one[0].is_beam]
        if owners:
            self._unread.append(_Unread(owners, tokens, label))

    def fill(self, rows_cpu: Int32, masks: np.ndarray) -> np.ndarray:
        """Write what these rows [S] may write next to the first lines of ``masks`` [.., words]
        int32, one line for each row that is not free.

        Returns the places [N] of those rows among ``rows_cpu``. Waits for the steps before.
        """
        took = self._take_in()
        places = np.flatnonzero(self._is_constrained[rows_cpu])
        rows = [self._rows[row] for row in rows_cpu[places].tolist()]
        is_masked = [row.is_masked for row in rows]
        if not all(is_masked):
            places, rows = places[is_masked], list(compress(rows, is_masked))
        lines = masks[: len(rows)]
        started = time.perf_counter()
        for i in (_fill_one_by_one if self._is_measured else _fill_by_kinds)(rows, lines):
            rows[i].look_for_error()
        self._is_measured = took + time.perf_counter() - started > SLOW_STEP_S
        _finish(rows, lines)
        return places

    def errors(self, rows_cpu: Int32) -> dict[int, str]:
        """Row -> why it cannot go on, for rows whose grammar met a limit or took too long."""
        rows = [int(row) for row in rows_cpu[self._is_constrained[rows_cpu]]]
        met = {row: self._rows[row].error for row in rows}
        return {row: Refusal(error) for row, error in met.items() if error is not None}

    def _take_in(self) -> float:
        """Read the tokens of the steps before and take them in. Returns the seconds that grammars
        took, without the wait for tokens."""
        took = 0.0
        unread, self._unread = self._unread, []
        for one in unread:
            if all(row.has_left for row, _ in one.owners):
                continue  # nobody needs these tokens, and their step may have failed
            tokens = one.tokens.read(self._timeout, one.label).tolist()
            started = time.perf_counter()
            for row, place in one.owners:
                if self._is_measured:
                    row.spend(partial(row.accept, tokens[place]))
                else:
                    row.accept(tokens[place])
            took += time.perf_counter() - started
        return took


def _fill_by_kinds(rows: Sequence[GrammarRow], lines: np.ndarray) -> Iterable[int]:
    """Fill the masks of each kind of grammar with one call; usually there is one kind.

    Returns the indices of rows whose states may have an error.
    """
    kinds: dict[type, list[tuple[int, Grammar, GrammarState]]] = {}
    for i, row in enumerate(rows):
        if row.grammar is not None and row.followed is not None:
            kinds.setdefault(type(row.grammar), []).append((i, row.grammar, row.followed))
    failed: list[int] = []
    for found in kinds.values():
        places, (grammar, *_), states = zip(*found, strict=True)
        if len(places) == len(rows):
            return grammar.fill_all(states, lines)
        part = np.empty((len(places), lines.shape[1]), dtype=np.int32)
        failed += [places[i] for i in grammar.fill_all(states, part)]
        lines[list(places)] = part
    return failed


def _fill_one_by_one(rows: Sequence[GrammarRow], lines: np.ndarray) -> Iterable[int]:
    for row, line in zip(rows, lines, strict=True):
        if row.followed is not None:
            row.spend(partial(row.followed.fill, line))
    return range(len(rows))


def _finish(rows: Sequence[GrammarRow], lines: np.ndarray) -> None:
    """Correct the masks by what grammars do not know. Most rows, whose texts cannot end yet, need
    nothing."""
    by_end: dict[int, list[int]] = {}
    for i, row in enumerate(rows):
        if row.grammar is not None and row.ends_by_grammar:
            by_end.setdefault(row.grammar.end_token_id, []).append(i)
        else:
            row.finish(lines[i])
    for end, places in by_end.items():
        may_end = lines[places, end >> 5] & token_bit(end)
        for i in np.flatnonzero(may_end).tolist():
            rows[places[i]].finish(lines[places[i]])
