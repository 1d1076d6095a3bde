"""Which rows of a step begin with the same KV blocks, so that these are read once for all of them.

Works on the host, in NumPy. Finds one common prefix per first block, which covers a system prompt
and the completions of one request; prefixes that branch further on are not split again. Prefixes
are shortened to few lengths, as shapes on a CPU are (`kernels.cpu.few_sizes`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from quire.kernels.cpu.few_sizes import shortened

Ints = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedPrefix:
    """Rows whose first ``num_blocks`` blocks are the same."""

    rows: Ints
    num_blocks: int  # all of whose tokens every query of these rows sees


def shared_prefixes(
    block_table: np.ndarray[tuple[int, int], np.dtype[np.int32]],
    num_full_blocks: Ints,
    *,
    min_saved_blocks: int,
) -> list[SharedPrefix]:
    """The prefixes by which at least ``min_saved_blocks`` blocks need not be read again.

    ``num_full_blocks`` [R] counts the blocks of each row that end before its first query.
    """
    first, group_of_row, num_rows = np.unique(
        block_table[:, 0], return_inverse=True, return_counts=True
    )
    if len(first) == len(block_table):
        return []
    found = []
    for group in np.flatnonzero(num_rows > 1):
        rows = np.flatnonzero(group_of_row == group)
        limit = int(num_full_blocks[rows].min())
        differs = (block_table[rows, :limit] != block_table[rows[0], :limit]).any(axis=0)
        num_blocks = shortened(int(differs.argmax()) if differs.any() else limit)
        if num_blocks * (len(rows) - 1) >= min_saved_blocks:
            found.append(SharedPrefix(rows=rows, num_blocks=num_blocks))
    return found
