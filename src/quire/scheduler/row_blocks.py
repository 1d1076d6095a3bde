"""Row blocks: gives running rows the blocks that they are about to write, and names full blocks, so
that later requests find them. Knows nothing about which row computes what.

Naming is hashing, so it is put off: rows that decode queue up for it. Each step names the blocks of
one row, a look-up those of all that are left, and a row that is left its own.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np

from quire.kv_cache.manager import KVCacheManager
from quire.scheduler.completion import Completion
from quire.scheduler.row_table import Index, RowTable
from quire.step import TableEntries


class RowBlocks:
    """Keeps changes for the worker in ``copies`` and ``entries`` until they are taken."""

    def __init__(self, kv: KVCacheManager, table: RowTable) -> None:
        self.copies: list[tuple[int, int]] = []  # (source, target) blocks
        self.entries: list[TableEntries] = []
        self._kv = kv
        self._table = table
        self._unnamed: OrderedDict[Completion, None] = OrderedDict()

    def take_changes(self) -> tuple[list[tuple[int, int]], list[TableEntries]]:
        """``copies`` and ``entries`` for the next plan; both are empty afterwards."""
        changes = self.copies, self.entries
        self.copies, self.entries = [], []
        return changes

    def grow_by_one(self, rows: Index) -> int:
        """Give each row one more block, as many of the first rows as blocks are free.

        None of them may be about to write to a shared block. Returns how many rows got one.
        """
        kv, table = self._kv, self._table
        owners = [self._owner(row) for row in rows.tolist()]
        if kv.has_windows:
            for owner, start in zip(owners, table.num_computed[rows].tolist(), strict=True):
                kv.release_passed(owner.table, start)
        count = min(len(rows), kv.pool.num_free // kv.num_groups)
        rows, owners = rows[:count], owners[:count]
        places = table.capacity[rows] // kv.block_size
        for group, blocks in enumerate(kv.extend([owner.table for owner in owners])):
            self.entries.append(
                TableEntries(
                    group=group,
                    rows=rows.astype(np.int32),
                    places=places,
                    block_ids=np.array(blocks, dtype=np.int32),
                )
            )
        table.capacity[rows] += kv.block_size
        table.tail_may_be_shared[rows] = False
        if kv.enable_prefix_caching:
            self._unnamed.update(dict.fromkeys(owners))
        return count

    def grow(self, completion: Completion, end: int) -> bool:
        """Make the positions up to ``end`` writable; False if blocks lack."""
        row, table = completion.row, completion.table
        start = int(self._table.num_computed[row])
        self._kv.release_passed(table, start)
        growth = self._kv.grow(table, start, end)
        if growth is None:
            return False
        self.copies += growth.copies
        self.entries += [
            TableEntries.of_row(row, group, growth.first, entries[growth.first :])
            for group, entries in enumerate(table.groups)
        ]
        self._table.capacity[row] = len(table) * self._kv.block_size
        self._table.tail_may_be_shared[row] = False
        self.name_span(completion, start, end)
        return True

    def name_span(self, completion: Completion, start: int, end: int) -> None:
        """Name the full blocks whose tokens are known, those of positions ``start`` to ``end`` of
        the step being planned included.

        That is right since, in each layer, keys and values are written before any row reads them;
        except in steps of one query per row (`kernels/cuda/decode_attention.cu`). So a block that a
        single query fills is named later.
        """
        if end - start > 1:
            self.name(completion, end)
        elif self._kv.enable_prefix_caching:
            self._unnamed[completion] = None

    def name(self, completion: Completion, num_computed: int) -> None:
        """Name the full blocks of the first ``num_computed`` tokens, as far as those are known."""
        if not self._kv.enable_prefix_caching:
            return
        self._unnamed.pop(completion, None)
        confirmed = self._table.confirmed_tokens(completion.row)
        num_full = min(num_computed, len(confirmed)) // self._kv.block_size
        if num_full > completion.table.num_registered:
            completion.extend_hashes(confirmed, self._kv.block_size)
            self._kv.register(completion.table, completion.hashes, num_full)

    def name_next(self) -> None:
        """Name the blocks of the row that has waited longest, if any."""
        if self._unnamed:
            completion = next(iter(self._unnamed))
            self.name(completion, int(self._table.num_computed[completion.row]))

    def name_all(self) -> None:
        while self._unnamed:
            self.name_next()

    def leave(self, completion: Completion) -> None:
        """Name the full blocks of a running completion that gives up its row.

        Entries added since the last plan are dropped, since the blocks may have new owners by then.
        """
        row = completion.row
        self.entries = [part for entries in self.entries if (part := entries.without(row))]
        self.name(completion, int(self._table.num_computed[row]))

    def release(self, completion: Completion) -> None:
        """`leave`, and take the completion's blocks; their names remain."""
        self.leave(completion)
        self._kv.release(completion.table)

    def _owner(self, row: int) -> Completion:
        completion = self._table.completions[row]
        assert completion is not None, "a running row has an owner"
        return completion
