"""Rows: the state of the running completions, on the device from the step in which they join.

The host sends changes only; a row's sampled tokens are written here by the step that samples them
and read here by the next. Knows nothing about requests, nor how a row is sampled.

    token_ids     [max_rows + 1, max_model_len + 1]     a row: |prompt ......|output ...|never read|
    block_tables  [groups, max_rows + 1, width]         a row: |blocks so far ........|0 0 0 0 0 0|

The last row, the spare row, has no owner: steps of a fixed size are filled up with it. Its only
block is the null block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.kernels.reference.lookup import RowState
from quire.kv_layout import NULL_BLOCK
from quire.step import JoinedRow, RowToken, StepPlan, TableEntries
from quire.worker.upload import Uploader
from quire.worker.zeros import lazy_zeros

NO_PROMPT_LOGPROBS = -2  # in `num_prompt_logprobs`: not asked for (-1: all, 0: the token's own)


class Rows:
    """Token ids and block tables of ``max_rows`` rows, and the few host columns a plan needs."""

    def __init__(
        self,
        *,
        max_rows: int,
        max_model_len: int,
        num_groups: int,
        block_size: int,
        device: torch.device,
    ) -> None:
        self.spare_row = max_rows
        # One more block than a full row needs, for the place of the last sampled token.
        table_shape = (num_groups, max_rows + 1, -(-max_model_len // block_size) + 1)
        self.token_ids = lazy_zeros((max_rows + 1, max_model_len + 1), torch.int32, device)
        self.block_tables = lazy_zeros(table_shape, torch.int32, device)
        self.state = RowState(
            token_ids=self.token_ids, block_tables=self.block_tables, block_size=block_size
        )
        self._num_entries = np.zeros((num_groups, max_rows), dtype=np.int32)  # written so far
        self.num_prompt_tokens = np.zeros(max_rows, dtype=np.int32)
        self.num_prompt_logprobs = np.full(max_rows, NO_PROMPT_LOGPROBS, dtype=np.int32)
        self._upload = Uploader(device)

    def apply(self, plan: StepPlan) -> None:
        """Apply the changes of a plan; in a steady step there are none."""
        if plan.left:
            self.num_prompt_logprobs[plan.left] = NO_PROMPT_LOGPROBS
        if plan.joined:
            self._join(plan.joined)
        if plan.blocks:
            self._write_blocks(plan.blocks)
        if plan.tokens:
            self._write_tokens(plan.tokens)

    def append(self, rows: Tensor, lengths: Tensor, token_ids: Tensor) -> None:
        """Write each row's sampled token at position ``lengths``. All arrays are [S]."""
        places = rows * self.token_ids.shape[1] + lengths
        self.token_ids.view(-1).index_copy_(0, places, token_ids.to(torch.int32))

    def _join(self, joined: list[JoinedRow]) -> None:
        for new in joined:
            self.num_prompt_tokens[new.row] = new.num_prompt_tokens
            asked = new.sampling.num_prompt_logprobs
            self.num_prompt_logprobs[new.row] = NO_PROMPT_LOGPROBS if asked is None else asked
        self._scatter(
            self.token_ids,
            [self._token_places(new.row, 0, len(new.token_ids)) for new in joined],
            [new.token_ids for new in joined],
        )
        rows = [new.row for new in joined]
        tables = zip(*(new.block_ids for new in joined), strict=True)
        self._write_blocks(
            [self._first_entries(rows, group, of_group) for group, of_group in enumerate(tables)]
        )
        for new in joined:
            self._num_entries[:, new.row] = [len(block_ids) for block_ids in new.block_ids]

    def _first_entries(
        self, rows: list[int], group: int, tables: Sequence[list[int]]
    ) -> TableEntries:
        """Entries for the tables of new rows, with null blocks in place of what a longer table of
        the last owner left: entries past a row's blocks are read, too."""
        lengths = self._num_entries[group, rows].tolist()
        filled = [
            table + [NULL_BLOCK] * (length - len(table))
            for table, length in zip(tables, lengths, strict=True)
        ]
        return TableEntries.of_tables(rows, group, filled)

    def _write_blocks(self, changed: list[TableEntries]) -> None:
        for change in changed:
            known = self._num_entries[change.group]
            # If a row occurs more than once, its last place counts, which is the highest.
            known[change.rows] = np.maximum(known[change.rows], change.places + 1)
        self._scatter(
            self.block_tables,
            [self._block_places(change) for change in changed],
            [change.block_ids for change in changed],
        )

    def _write_tokens(self, tokens: list[RowToken]) -> None:
        self._scatter(
            self.token_ids,
            [self._token_places(token.row, token.position, 1) for token in tokens],
            [np.asarray([token.token_id]) for token in tokens],
        )

    def _token_places(self, row: int, first: int, count: int) -> np.ndarray:
        width = self.token_ids.shape[1]
        assert first + count <= width, (row, first, count, width)
        return np.arange(first, first + count) + row * width

    def _block_places(self, change: TableEntries) -> np.ndarray:
        _, num_rows, width = self.block_tables.shape
        assert change.places.max(initial=0) < width, (change, width)
        return (change.group * num_rows + change.rows.astype(np.int64)) * width + change.places

    def _scatter(
        self,
        target: Tensor,
        places: Sequence[np.ndarray],
        values: Sequence[np.ndarray],
    ) -> None:
        """Write ``values`` to the flat ``places`` of ``target``."""
        count = sum(map(len, values))
        pairs = np.zeros(-(-count // 2), dtype=np.int64)  # two int32 values as one number
        np.concatenate(values, out=pairs.view(np.int32)[:count], casting="same_kind")
        indices, numbers = self._upload([np.concatenate(places), pairs])
        target.view(-1).index_copy_(0, indices, numbers.view(torch.int32)[:count])
