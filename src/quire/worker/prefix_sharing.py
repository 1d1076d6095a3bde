"""Which rows of a decode step begin with the same KV blocks, so that these are read once for all.

A mirror, on the host, of the first blocks of the rows' tables in one layer group (the first without
a window). A step gets one prefix, the one that saves most reads; others are read row by row.

Blocks that stand in two tables are full of tokens that both rows see: a row writes only to blocks
of its own (`KVCacheManager.grow`). Knows nothing about tensors, and nothing about lengths.
"""

from __future__ import annotations

import numpy as np

from quire.kv_layout import NULL_BLOCK
from quire.step import Int32, StepPlan, TableEntries

SharedRows = tuple[Int32, Int32]  # members [R], then -1; num_blocks [R], 0 for all others


class PrefixSharing:
    """Follows the tables of ``max_rows`` rows; `find` is cheap while the same rows decode."""

    def __init__(
        self,
        *,
        max_rows: int,
        width: int,
        block_size: int,
        group: int = 0,
        min_members: int = 16,
        min_tokens: int = 256,
    ) -> None:
        """``width``: entries of a table that are looked at, from its first one on.

        ``min_tokens``: how long a prefix must be, so that two launches are worth it.
        """
        self._group = group
        self._width = width
        self._min_members = min_members
        self._min_blocks = max(1, -(-min_tokens // block_size))
        # The null block where a table has no entry yet.
        self._tables = np.full((max_rows, width), NULL_BLOCK, dtype=np.int32)
        self._num_known = np.zeros(max_rows, dtype=np.int32)  # entries that a row's table has
        self._num_shared = np.zeros(max_rows, dtype=np.int32)  # in the result that is kept
        self._rows: bytes | None = None  # what the kept result is of; None: nothing is kept
        self._found: SharedRows | None = None

    def apply(self, plan: StepPlan) -> None:
        """Follow a plan's changes, in the plan's own order."""
        if plan.left:
            self._tables[plan.left] = NULL_BLOCK
            self._num_known[plan.left] = 0
            self._rows = None
        for new in plan.joined:
            self._tables[new.row] = NULL_BLOCK
            self._num_known[new.row] = 0
            self._write(TableEntries.of_row(new.row, self._group, 0, new.block_ids[self._group]))
            self._rows = None
        for change in plan.blocks:
            if change.group == self._group:
                self._write(change)
                # Entries behind a prefix cannot make it wrong, only longer for rows that forked.
                if (change.places < self._num_shared[change.rows]).any():
                    self._rows = None

    def find(self, rows: Int32) -> SharedRows | None:
        """The best prefix among ``rows`` [R], by their places in it; None: none is worth it."""
        if self._rows != (ids := rows.tobytes()):
            self._rows = ids
            self._found = self._search(rows)
            self._num_shared[:] = 0
            if self._found is not None:
                self._num_shared[rows] = self._found[1]
        return self._found

    def _write(self, change: TableEntries) -> None:
        is_seen = change.places < self._width
        rows, places = change.rows[is_seen], change.places[is_seen]
        self._tables[rows, places] = change.block_ids[is_seen]
        # Where a row is named more than once its last place counts, which is its highest.
        self._num_known[rows] = np.maximum(self._num_known[rows], places + 1)

    def _search(self, rows: Int32) -> SharedRows | None:
        """Walk down the tree of prefixes; a node is the rows that agree so far."""
        best: tuple[int, np.ndarray, int] | None = None  # blocks not read, places, length
        open_nodes = [np.arange(len(rows))] if len(rows) >= self._min_members else []
        while open_nodes:
            places = open_nodes.pop()
            length = self._common_length(rows[places])
            saved = (len(places) - 1) * length
            if length >= self._min_blocks and (best is None or saved > best[0]):
                best = saved, places, length
            if length < self._width:
                entries = self._tables[rows[places], length]
                open_nodes += _split(places, entries, self._min_members)
        if best is None:
            return None
        _, places, length = best
        members = np.full(len(rows), -1, dtype=np.int32)
        members[: len(places)] = places
        num_blocks = np.zeros(len(rows), dtype=np.int32)
        num_blocks[places] = length
        return members, num_blocks

    def _common_length(self, rows: Int32) -> int:
        """Leading entries that the tables of ``rows`` have in common."""
        limit = int(self._num_known[rows].min())
        tables = self._tables[rows, :limit]
        differs = ((tables != tables[0]) | (tables == NULL_BLOCK)).any(axis=0)
        return int(differs.argmax()) if differs.any() else limit


def _split(places: np.ndarray, entries: np.ndarray, min_members: int) -> list[np.ndarray]:
    """The places by their entry, where enough have the same; those without an entry are done, as
    nobody shares with them."""
    blocks, counts = np.unique(entries, return_counts=True)
    is_worth_it = (counts >= min_members) & (blocks != NULL_BLOCK)
    return [places[entries == block] for block in blocks[is_worth_it]]
