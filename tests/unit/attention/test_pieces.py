"""Rows are cut into pieces that cover every query once, and bucketed within the limits."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.attention.pieces import Pieces, bucket, cut

_ROWS = st.lists(st.tuples(st.integers(0, 70), st.integers(1, 40)), min_size=1, max_size=12)


def _cut(rows: list[tuple[int, int]], window: int | None, max_queries: int = 16) -> Pieces:
    """Pieces of rows given as (tokens computed before, tokens of this step)."""
    counts = np.array([count for _, count in rows])
    query_start = np.concatenate(([0], np.cumsum(counts)))
    seq_lens = np.array([before + count for before, count in rows])
    return cut(query_start, seq_lens, block_size=4, window=window, max_queries=max_queries)


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, window=st.one_of(st.none(), st.integers(1, 20)))
def test_every_query_is_in_one_piece_that_holds_what_it_sees(
    rows: list[tuple[int, int]], window: int | None
) -> None:
    pieces = _cut(rows, window)
    positions: dict[int, list[int]] = {row: [] for row in range(len(rows))}
    tokens: list[int] = []
    for row, token, count, position, block, num_blocks in zip(
        pieces.row,
        pieces.first_token,
        pieces.num_queries,
        pieces.first_position,
        pieces.first_block,
        pieces.num_blocks,
        strict=True,
    ):
        assert 1 <= count <= 16
        tokens.extend(range(token, token + count))
        positions[row].extend(range(position, position + count))
        first_seen = 0 if window is None else max(0, position - window + 1)
        assert block == first_seen // 4
        assert (block + num_blocks - 1) * 4 <= position + count - 1 < (block + num_blocks) * 4
    assert tokens == list(range(sum(count for _, count in rows)))
    for row, (before, count) in enumerate(rows):
        assert positions[row] == list(range(before, before + count))


@settings(max_examples=60, deadline=None)
@given(rows=_ROWS, max_waste=st.integers(0, 200), max_blocks=st.integers(1, 60))
def test_buckets_hold_every_piece_once_within_the_limits(
    rows: list[tuple[int, int]], max_waste: int, max_blocks: int
) -> None:
    pieces = _cut(rows, window=None)
    buckets = bucket(pieces, max_waste=max_waste, max_blocks=max_blocks)
    found = sorted(token for one in buckets for token in one.first_token)
    assert found == sorted(pieces.first_token)
    for one in buckets:
        longest = one.num_blocks.max()
        assert len(one.row) == 1 or len(one.row) * longest <= max_blocks
        assert one.num_queries.max() - one.num_queries.min() < 8
        assert (one.num_queries == 1).all() or (one.num_queries > 1).all()
        is_single = one.num_queries.max() == 1
        padded = 1 if is_single else -(-one.num_queries.max() // 8) * 8
        assert (longest - one.num_blocks).sum() * padded <= max_waste


def test_rows_of_one_length_share_a_bucket() -> None:
    pieces = _cut([(30, 1)] * 9, window=None)
    assert [len(one.row) for one in bucket(pieces, max_waste=0, max_blocks=1000)] == [9]


def test_a_much_longer_row_gets_a_bucket_of_its_own() -> None:
    pieces = _cut([(20, 1), (4000, 1), (20, 1), (20, 1)], window=None)
    buckets = bucket(pieces, max_waste=11, max_blocks=5000)
    assert [list(one.row) for one in buckets] == [[1], [0, 2, 3]]
