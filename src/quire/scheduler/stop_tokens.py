"""Stop tokens: which token ids end the completion of a row.

Nearly all rows have a few, which are kept as arrays and compared for all rows at once. A row with
many is looked up by itself, at no cost to the others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NO_TOKEN = -1
_MAX_FEW = 8


@dataclass(frozen=True, slots=True)
class StopsOfRows:
    """The stop tokens of R rows at the time of `StopTokens.of`."""

    few: np.ndarray  # [the most of any row, R]; `NO_TOKEN` where a row has fewer
    many: tuple[tuple[int, frozenset[int]], ...]  # (index into R, token ids)

    def among(self, tokens: np.ndarray) -> np.ndarray:
        """Which of ``tokens`` [R], one per row, end their completions; bool [R]."""
        is_stop = np.logical_or.reduce(self.few == tokens)
        for index, token_ids in self.many:
            is_stop[index] = int(tokens[index]) in token_ids
        return is_stop


class StopTokens:
    """The stop tokens of all rows."""

    def __init__(self, max_rows: int) -> None:
        self._few = np.full((1, max_rows), NO_TOKEN, dtype=np.int32)  # at most `_MAX_FEW` lines
        self._many: dict[int, frozenset[int]] = {}

    def join(self, row: int, token_ids: tuple[int, ...]) -> None:
        self._few[:, row] = NO_TOKEN
        if len(token_ids) > _MAX_FEW:
            self._many[row] = frozenset(token_ids)
            return
        lacking = len(token_ids) - len(self._few)
        if lacking > 0:
            self._few = np.pad(self._few, ((0, lacking), (0, 0)), constant_values=NO_TOKEN)
        self._few[: len(token_ids), row] = token_ids

    def leave(self, row: int) -> None:
        self._many.pop(row, None)

    def of(self, rows: np.ndarray) -> StopsOfRows:
        many = self._many
        return StopsOfRows(
            few=self._few.take(rows, axis=1),
            many=tuple((i, many[row]) for i, row in enumerate(rows.tolist()) if row in many)
            if many
            else (),
        )
