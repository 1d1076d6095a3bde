"""RowBlocks: many rows grow as one would, and full blocks are found when somebody looks."""

from __future__ import annotations

import numpy as np
import pytest

from quire.kv_cache.manager import KVCacheManager
from quire.request import EngineRequest, RowSampling
from quire.scheduler.completion import Completion
from quire.scheduler.row_blocks import RowBlocks
from quire.scheduler.row_table import RowTable

BLOCK = 4


class Rows:
    """Completions with a row each, all of whose known tokens but the last are computed."""

    def __init__(
        self, lengths: list[int], num_blocks: int = 50, windows: tuple[int | None, ...] = (None,)
    ) -> None:
        self.kv = KVCacheManager(num_blocks=num_blocks, block_size=BLOCK, windows=windows)
        self.table = RowTable(len(lengths), 64)
        self.blocks = RowBlocks(self.kv, self.table)
        self.completions = [self._join(i, length) for i, length in enumerate(lengths)]
        self.rows = np.array([one.row for one in self.completions], dtype=np.intp)
        self.blocks.take_changes()

    def _join(self, index: int, length: int) -> Completion:
        request = EngineRequest(
            request_id=str(index),
            prompt_token_ids=[index] * length,
            sampling=RowSampling(),
            max_tokens=30,
        )
        completion = Completion.first_of(request, index, self.kv.new_table())
        self.table.join(completion, num_computed=0, capacity=0, max_pending=1)
        assert self.blocks.grow(completion, length - 1)
        self.table.num_computed[completion.row] = length - 1
        return completion

    def found(self, index: int) -> int:
        """Blocks of the completion that a look-up finds."""
        completion = self.completions[index]
        completion.extend_hashes(completion.token_ids, BLOCK)
        return len(self.kv.find_prefix(completion.hashes, len(completion.token_ids)))

    def check(self) -> None:
        self.kv.check_integrity([one.table for one in self.completions])
        for one in self.completions:
            if one.row >= 0:
                assert self.table.capacity[one.row] == len(one.table) * BLOCK


def test_rows_that_grow_together_get_a_block_in_every_group() -> None:
    rows = Rows([5, 9, 13], windows=(None, 6))
    assert rows.blocks.grow_by_one(rows.rows) == 3
    _, entries = rows.blocks.take_changes()
    assert [change.group for change in entries] == [0, 1]
    for change in entries:
        assert change.rows.tolist() == rows.rows.tolist()
        assert change.places.tolist() == [1, 2, 3]
        tables = [one.table.groups[change.group] for one in rows.completions]
        assert change.block_ids.tolist() == [table[-1] for table in tables]
    assert rows.completions[2].table.groups[1][0] == 0  # behind the window
    rows.check()


def test_the_first_rows_grow_where_blocks_do_not_suffice_for_all() -> None:
    rows = Rows([5, 5, 5], num_blocks=1 + 3 + 2)
    assert rows.blocks.grow_by_one(rows.rows) == 2
    assert [len(one.table) for one in rows.completions] == [2, 2, 1]
    rows.check()


@pytest.mark.parametrize("look", [True, False])
def test_full_blocks_of_rows_that_decode_are_named_by_turns_or_when_someone_looks(
    look: bool,
) -> None:
    rows = Rows([4, 4])
    rows.table.num_computed[rows.rows] = 4
    assert rows.blocks.grow_by_one(rows.rows) == 2
    assert [rows.found(0), rows.found(1)] == [0, 0]
    if look:
        rows.blocks.name_all()
    else:
        rows.blocks.name_next()
        assert [rows.found(0), rows.found(1)] == [1, 0]
        rows.blocks.name_next()
    assert [rows.found(0), rows.found(1)] == [1, 1]
    rows.check()


def test_a_row_that_leaves_before_its_turn_is_found_all_the_same() -> None:
    rows = Rows([4, 4])
    rows.table.num_computed[rows.rows] = 4
    rows.blocks.grow_by_one(rows.rows)
    rows.blocks.release(rows.completions[0])
    rows.table.leave(int(rows.rows[0]))
    assert [rows.found(0), rows.found(1)] == [1, 0]
    rows.blocks.name_all()
    assert rows.found(1) == 1
    rows.check()


def test_a_row_that_leaves_takes_what_it_got_since_the_last_plan_with_it() -> None:
    """The row may be another's in the same plan, whose table comes first."""
    rows = Rows([5, 9, 13])
    assert rows.blocks.grow_by_one(rows.rows) == 3
    rows.blocks.release(rows.completions[1])
    rows.table.leave(rows.completions[1].row)
    _, (change,) = rows.blocks.take_changes()
    assert change.rows.tolist() == rows.rows[[0, 2]].tolist()
    assert len(change.places) == len(change.block_ids) == 2
    rows.blocks.grow_by_one(rows.rows[:1])
    rows.blocks.release(rows.completions[0])
    rows.table.leave(rows.completions[0].row)
    assert rows.blocks.take_changes() == ([], [])
    rows.check()
