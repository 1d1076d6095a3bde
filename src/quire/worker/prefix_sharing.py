"""Which rows of a decode step begin with the same KV blocks, so that these are read once for all.

Keeps a copy, on the host, of the first blocks of the rows' tables in one layer group (the first
without a window). A step gets one prefix, the one that saves most reads; others are read row by
row.

A block in two tables is full of tokens that both rows see, since a row writes only to blocks that
it does not share (`KVCacheManager.grow`). Knows nothing about tensors or lengths.
"""

from __future__ import annotations

import numpy as np

from quire.kv_layout import NULL_BLOCK
from quire.step import Int32, StepPlan, TableEntries

# [R] the indices of the members, then -1; [R] the number of blocks of each member, 0 for other rows
SharedRows = tuple[Int32, Int32]
_FIRST_ENTRIES = 4096  # of all tables together, in the first comparison


class PrefixSharing:
    """Follows the tables of ``max_rows`` rows; `find` is cheap while the same rows decode.

    When rows leave or join, what is known of the others still holds: the rows of a *clique* agree
    in their first ``num_agreed`` entries, so that one of them stands for all up to there.
    """

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
        """``width``: how many first entries of a table are compared.

        ``min_tokens``: the length from which on a prefix is worth a launch of its own.
        """
        self._group = group
        self._width = width
        self._min_members = min_members
        self._min_blocks = max(1, -(-min_tokens // block_size))
        # The null block where a table has no entry yet.
        self._tables = np.full((max_rows, width), NULL_BLOCK, dtype=np.int32)
        self._num_known = np.zeros(max_rows, dtype=np.int32)  # number of entries of a row's table
        self._num_shared = np.zeros(max_rows, dtype=np.int32)  # blocks by row, as in `_found`
        self._cliques = np.arange(max_rows)  # by row; a number below ``max_rows``: the row is alone
        self._num_agreed = np.full(max_rows, width, dtype=np.int32)  # equal for all of a clique
        self._next_clique = max_rows
        self._rows: bytes | None = None  # the rows that `_found` is for; None: it is out of date
        self._found: SharedRows | None = None

    def apply(self, plan: StepPlan) -> None:
        """Apply a plan's changes, in the plan's order."""
        if plan.left:
            self._clear(plan.left)
            self._rows = None
        if plan.joined:
            rows = [new.row for new in plan.joined]
            tables = [new.block_ids[self._group] for new in plan.joined]
            self._clear(rows)
            self._write(TableEntries.of_tables(rows, self._group, tables))
            self._rows = None
        for change in plan.blocks:
            if change.group == self._group:
                self._write(change)
                # Entries behind a prefix cannot make it wrong; they may make a longer one possible.
                if (change.places < self._num_shared[change.rows]).any():
                    self._rows = None
                self._leave_cliques(change.rows[change.places < self._num_agreed[change.rows]])

    def find(self, rows: Int32) -> SharedRows | None:
        """The best prefix among ``rows`` [R], with members as indices into them; None: none is
        worth a launch."""
        if self._rows != (ids := rows.tobytes()):
            self._rows = ids
            self._found = self._search(rows)
            self._num_shared[:] = 0
            if self._found is not None:
                self._num_shared[rows] = self._found[1]
        return self._found

    def _clear(self, rows: list[int]) -> None:
        self._tables[rows] = NULL_BLOCK
        self._num_known[rows] = 0
        self._leave_cliques(rows)

    def _leave_cliques(self, rows: list[int] | Int32) -> None:
        self._cliques[rows] = rows
        self._num_agreed[rows] = self._width

    def _write(self, change: TableEntries) -> None:
        is_seen = change.places < self._width
        rows, places = change.rows[is_seen], change.places[is_seen]
        self._tables[rows, places] = change.block_ids[is_seen]
        # If a row occurs more than once, its last place counts, which is the highest.
        self._num_known[rows] = np.maximum(self._num_known[rows], places + 1)

    def _search(self, rows: Int32) -> SharedRows | None:
        """Walk down the tree of prefixes; a node is a set of rows that agree up to its length."""
        best: tuple[int, np.ndarray, int] | None = None  # number of reads saved, places, length
        open_nodes = [(np.arange(len(rows)), 0)] if len(rows) >= self._min_members else []
        nodes: list[tuple[Int32, int]] = []
        while open_nodes:
            places, start = open_nodes.pop()
            length = self._common_length(rows[places], start)
            nodes.append((rows[places], length))
            saved = (len(places) - 1) * length
            if length >= self._min_blocks and (best is None or saved > best[0]):
                best = saved, places, length
            if length < self._width:
                entries = self._tables[rows[places], length]
                children = _split(places, entries, self._min_members)
                open_nodes += [(child, length + 1) for child in children]
        self._make_cliques(nodes)
        if best is None:
            return None
        _, places, length = best
        members = np.full(len(rows), -1, dtype=np.int32)
        members[: len(places)] = places
        num_blocks = np.zeros(len(rows), dtype=np.int32)
        num_blocks[places] = length
        return members, num_blocks

    def _common_length(self, rows: Int32, start: int) -> int:
        """How many first entries are equal in the tables of ``rows``, which agree up to ``start``.

        As far as a clique agrees, only one of its rows is compared.
        """
        cliques, num_agreed = self._cliques[rows], self._num_agreed[rows]
        if len(rows) > 1 and (cliques == cliques[0]).all():
            return self._end_of_agreement(rows, max(start, int(num_agreed[0])), self._width)
        is_first = np.zeros(len(rows), dtype=np.bool_)
        is_first[np.unique(cliques, return_index=True)[1]] = True
        while start < self._width:
            end = int(num_agreed.min(where=num_agreed > start, initial=self._width))
            length = self._end_of_agreement(rows[is_first | (num_agreed <= start)], start, end)
            if length < end:
                return length
            start = end
        return self._width

    def _end_of_agreement(self, rows: Int32, start: int, end: int) -> int:
        """The first entry from ``start`` on that differs between the tables, at most ``end``.

        Compares more and more entries at a time, since most tables that differ do so early.
        """
        width = max(8, _FIRST_ENTRIES // len(rows))
        end = min(end, int(self._num_known[rows].min()))
        while start < end:
            tables = self._tables[rows, start : min(start + width, end)]
            differs = (tables != tables[0]).any(axis=0) | (tables[0] == NULL_BLOCK)
            if differs.any():
                return start + int(differs.argmax())
            start += width
            width *= 2
        return end

    def _make_cliques(self, nodes: list[tuple[Int32, int]]) -> None:
        """Make each node (rows, length) a clique. Nodes come before those within them, so that a
        row ends in the longest."""
        for rows, length in nodes:
            self._cliques[rows] = self._next_clique
            self._num_agreed[rows] = length
            self._next_clique += 1


def _split(places: np.ndarray, entries: np.ndarray, min_members: int) -> list[np.ndarray]:
    """Group ``places`` by their entry, and keep groups of ``min_members`` or more.

    Places without an entry, whose table ends here, are in no group.
    """
    in_order = np.sort(entries)
    firsts = in_order[: len(in_order) - min_members + 1]
    blocks = np.unique(firsts[firsts == in_order[min_members - 1 :]])
    return [places[entries == block] for block in blocks[blocks != NULL_BLOCK]]
