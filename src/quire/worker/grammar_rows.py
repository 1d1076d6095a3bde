"""Grammar rows: how far each constrained row has come, and what it may write next.

Tokens are taken in as the host learns of them: those of the steps before, when masks are asked for.
By then this step's forward has been launched, so the device has work while the host waits and
fills. Knows nothing about how masks reach the logits.
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
from quire.worker.watch import StepLabel, Watch

# What the grammars of a step may take. Behind one that took longer each row is measured: one that
# is ambiguous can take a second for a token, and all others wait for it.
SLOW_STEP_S = 0.02


@dataclass(frozen=True, slots=True)
class _Unread:
    """Tokens of a step, and whose they are."""

    owners: list[tuple[GrammarRow, int]]  # and the place of its token
    tokens: HostTokens
    label: StepLabel


class GrammarRows:
    """Of all rows; rows without a constraint cost a look at one array."""

    def __init__(self, *, max_rows: int, vocab_size: int, watch: Watch) -> None:
        self.num_words = -(-vocab_size // 32)
        self._watch = watch
        self._rows: dict[int, GrammarRow] = {}
        self._is_constrained = np.zeros(max_rows + 1, dtype=np.bool_)
        self._unread: list[_Unread] = []
        self._is_measured = False  # the step before was slow

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
        """Rows that cannot go on: what their grammars met, or cost."""
        rows = [int(row) for row in rows_cpu[self._is_constrained[rows_cpu]]]
        met = {row: self._rows[row].error for row in rows}
        return {row: Refusal(error) for row, error in met.items() if error is not None}

    def _take_in(self) -> float:
        """Seconds that it took the grammars; what the host waited for tokens is not theirs."""
        took = 0.0
        unread, self._unread = self._unread, []
        for one in unread:
            if all(row.has_left for row, _ in one.owners):
                continue  # and the step may have failed
            tokens = one.tokens.read(self._watch, one.label).tolist()
            started = time.perf_counter()
            for row, place in one.owners:
                if self._is_measured:
                    row.spend(partial(row.accept, tokens[place]))
                else:
                    row.accept(tokens[place])
            took += time.perf_counter() - started
        return took


def _fill_by_kinds(rows: Sequence[GrammarRow], lines: np.ndarray) -> Iterable[int]:
    """All of one kind of grammar at once; usually all rows are of one. Whose states may have an
    error."""
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
    """What masks of grammars do not say: nothing of most rows, whose texts cannot end yet."""
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
