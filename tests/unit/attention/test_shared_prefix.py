"""Common first blocks are found, never more than every row has computed."""

from __future__ import annotations

import numpy as np

from quire.attention.shared_prefix import shared_prefixes

_TABLE = np.array(
    [
        [7, 8, 9, 1],
        [3, 4, 5, 6],
        [7, 8, 9, 2],
        [7, 8, 5, 0],
        [3, 4, 5, 9],
        [10, 11, 0, 0],
    ],
    dtype=np.int32,
)


def _found(full: list[int], min_saved_blocks: int = 1) -> list[tuple[list[int], int]]:
    prefixes = shared_prefixes(_TABLE, np.array(full), min_saved_blocks=min_saved_blocks)
    return [(prefix.rows.tolist(), prefix.num_blocks) for prefix in prefixes]


def test_rows_with_one_first_block_share_what_all_of_them_have() -> None:
    assert _found([3, 3, 3, 3, 3, 1]) == [([1, 4], 3), ([0, 2, 3], 2)]


def test_a_block_that_a_query_of_some_row_is_in_is_not_shared() -> None:
    assert _found([3, 1, 3, 1, 3, 1]) == [([1, 4], 1), ([0, 2, 3], 1)]
    assert _found([3, 0, 3, 0, 3, 1]) == []


def test_small_savings_are_left_alone() -> None:
    assert _found([3, 3, 3, 3, 3, 1], min_saved_blocks=4) == [([0, 2, 3], 2)]


def test_prefixes_are_shortened_to_few_lengths() -> None:
    lengths = set()
    for num_blocks in range(1, 65):
        (found,) = shared_prefixes(
            np.ones((2, 80), dtype=np.int32), np.full(2, num_blocks), min_saved_blocks=1
        )
        assert num_blocks * 8 // 9 <= found.num_blocks <= num_blocks
        lengths.add(found.num_blocks)
    assert len(lengths) == 16 + 2 * 8


def test_nothing_shared() -> None:
    assert shared_prefixes(_TABLE[[0, 1, 5]], np.array([3, 3, 1]), min_saved_blocks=0) == []
