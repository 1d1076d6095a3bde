"""Changes of block tables, as plans carry them."""

from __future__ import annotations

import numpy as np

from quire.step import TableEntries


def test_tables_of_several_rows_are_entries_one_after_another() -> None:
    entries = TableEntries.of_tables([4, 0, 2], 1, [[7, 8, 9], [], [5]])
    assert entries.group == 1
    assert entries.rows.tolist() == [4, 4, 4, 2]
    assert entries.places.tolist() == [0, 1, 2, 0]
    assert entries.block_ids.tolist() == [7, 8, 9, 5]
    assert {one.dtype for one in (entries.rows, entries.places, entries.block_ids)} == {
        np.dtype(np.int32)
    }
