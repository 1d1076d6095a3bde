"""How a step's attention is cut into batched calls on a CPU: pieces of rows, gathered in buckets.

A *piece* is a run of one row's queries with the KV blocks that they can see. A *bucket* is a list
of pieces that are padded to one shape and computed by one call. Works on the host, in NumPy, in
time that grows with the number of buckets, not of rows. Knows nothing about heads or values.

    row's tokens   |0 . . . . . . . computed . . . . . .|q q q q q q q q q q|
    pieces         |          blocks of piece 0         |# # # # #|
                   |          blocks of piece 1         |         |# # # # #|
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]

_FINE_PADDING = 8  # short runs of queries are padded to a multiple of it, and so share a bucket
_FINE_LIMIT = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """Parallel arrays with one entry per piece."""

    row: Ints
    first_token: Ints  # index into the step's tokens
    num_queries: Ints
    first_position: Ints  # of the first query, in its row
    first_block: Ints  # index into the row's block table
    num_blocks: Ints

    def take(self, chosen: Ints) -> Pieces:
        return Pieces(
            row=self.row[chosen],
            first_token=self.first_token[chosen],
            num_queries=self.num_queries[chosen],
            first_position=self.first_position[chosen],
            first_block=self.first_block[chosen],
            num_blocks=self.num_blocks[chosen],
        )

    def without_first(self, num_blocks: int) -> Pieces:
        """These queries over all but the first ``num_blocks`` blocks of their rows."""
        assert (self.first_block == 0).all()
        return replace(
            self,
            first_block=self.first_block + num_blocks,
            num_blocks=self.num_blocks - num_blocks,
        )

    @property
    def tokens(self) -> Ints:
        """All queries, as indices into the step's tokens."""
        before = np.cumsum(self.num_queries) - self.num_queries
        start = np.repeat(self.first_token - before, self.num_queries)
        return start + np.arange(len(start))


def cut(
    query_start: Ints, seq_lens: Ints, *, block_size: int, window: int | None, max_queries: int
) -> Pieces:
    """All rows of a step as pieces of at most ``max_queries`` queries."""
    query_lens = np.diff(query_start)
    per_row = -(-query_lens // max_queries)
    row = np.repeat(np.arange(len(seq_lens)), per_row)
    ordinal = np.arange(len(row)) - np.repeat(np.cumsum(per_row) - per_row, per_row)
    offset = ordinal * max_queries
    num_queries = np.minimum(query_lens[row] - offset, max_queries)
    first_position = seq_lens[row] - query_lens[row] + offset
    first_visible = first_position * 0 if window is None else first_position - window + 1
    first_block = np.maximum(first_visible, 0) // block_size
    end_block = -(-(first_position + num_queries) // block_size)
    return Pieces(
        row=row,
        first_token=query_start[row] + offset,
        num_queries=num_queries,
        first_position=first_position,
        first_block=first_block,
        num_blocks=end_block - first_block,
    )


def bucket(pieces: Pieces, *, max_waste: int, max_blocks: int) -> list[Pieces]:
    """Gather pieces of like shape, longest first.

    A bucket ends where padding has cost ``max_waste`` query-blocks (about what one more call
    costs), or where it would gather more than ``max_blocks`` blocks; a single piece may exceed it.
    """
    padded = _padded(pieces.num_queries)
    order = np.lexsort((-pieces.num_blocks, padded))
    padded, num_blocks = padded[order], pieces.num_blocks[order]
    buckets = []
    start = 0
    while start < len(order):
        same = int(np.searchsorted(padded, padded[start], side="right"))
        longest = num_blocks[start]
        waste = np.cumsum(longest - num_blocks[start:same]) * padded[start]
        count = int(np.searchsorted(waste, max_waste, side="right"))
        count = max(1, min(count, int(max_blocks // longest)))
        buckets.append(pieces.take(order[start : start + count]))
        start += count
    return buckets


def _padded(num_queries: Ints) -> Ints:
    fine = -(-num_queries // _FINE_PADDING) * _FINE_PADDING
    short = (num_queries > 1) & (num_queries <= _FINE_LIMIT)
    return np.where(short, fine, num_queries)
