"""Rows: the state of the running completions, on the device from the step they join in.

The host sends changes only; a row's sampled tokens are written here by the step that samples them
and read here by the next. Knows nothing about requests, and nothing about how a row is sampled.

    token_ids     [max_rows + 1, max_model_len + 1]     a row: |prompt ......|output ...|never read|
    block_tables  [groups, max_rows + 1, width]         a row: |blocks so far ........|0 0 0 0 0 0|

The last row is nobody's: steps of a fixed size fill up with it. Its only block is the null block.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.step import JoinedRow, RowBlocks, RowToken, StepPlan
from quire.worker.upload import upload
from quire.worker.zeros import lazy_zeros

NO_LOGPROBS = -2  # in `num_prompt_logprobs`: the row did not ask (-1 asks for all, 0 for its own)


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
        # One more block than a full row needs, since the last sampled token has a place too.
        table_shape = (num_groups, max_rows + 1, -(-max_model_len // block_size) + 1)
        self.token_ids = lazy_zeros((max_rows + 1, max_model_len + 1), torch.int32, device)
        self.block_tables = lazy_zeros(table_shape, torch.int32, device)
        self.num_prompt_tokens = np.zeros(max_rows, dtype=np.int32)
        self.num_prompt_logprobs = np.full(max_rows, NO_LOGPROBS, dtype=np.int32)
        self._device = device

    def apply(self, plan: StepPlan) -> None:
        """Make the changes that a plan brings; in a steady step there are none."""
        if plan.left:
            self._clear(plan.left)
        if plan.joined:
            self._join(plan.joined)
        if plan.blocks:
            self._write_blocks(plan.blocks)
        if plan.tokens:
            self._write_tokens(plan.tokens)

    def append(self, rows: Tensor, lengths: Tensor, token_ids: Tensor) -> None:
        """Write the token that each row sampled behind the ``lengths`` tokens it has. All [S]."""
        places = rows * self.token_ids.shape[1] + lengths
        self.token_ids.view(-1).index_copy_(0, places, token_ids.to(torch.int32))

    def _clear(self, rows: list[int]) -> None:
        """A row's next owner may have fewer blocks; entries past them must be the null block."""
        (indices,) = upload([np.asarray(rows)], self._device)
        self.block_tables.index_fill_(1, indices, 0)
        self.num_prompt_logprobs[rows] = NO_LOGPROBS

    def _join(self, joined: list[JoinedRow]) -> None:
        for new in joined:
            asked = new.sampling.num_prompt_logprobs
            self.num_prompt_tokens[new.row] = new.num_prompt_tokens
            self.num_prompt_logprobs[new.row] = NO_LOGPROBS if asked is None else asked
        self._scatter(
            self.token_ids,
            [self._token_places(new.row, 0, len(new.token_ids)) for new in joined],
            [new.token_ids for new in joined],
        )
        self._write_blocks(
            [
                RowBlocks(row=new.row, group=group, first=0, block_ids=block_ids)
                for new in joined
                for group, block_ids in enumerate(new.block_ids)
            ]
        )

    def _write_blocks(self, changed: list[RowBlocks]) -> None:
        self._scatter(
            self.block_tables,
            [self._block_places(change) for change in changed],
            [np.asarray(change.block_ids, dtype=np.int32) for change in changed],
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

    def _block_places(self, change: RowBlocks) -> np.ndarray:
        _, max_rows, width = self.block_tables.shape
        last = change.first + len(change.block_ids)
        assert last <= width, (change, width)
        return np.arange(change.first, last) + (change.group * max_rows + change.row) * width

    def _scatter(
        self, target: Tensor, places: Sequence[np.ndarray], values: Sequence[np.ndarray]
    ) -> None:
        """Write ``values`` to the flat ``places`` of ``target``."""
        indices, numbers = upload([np.concatenate(places), np.concatenate(values)], self._device)
        target.view(-1).index_copy_(0, indices, numbers.to(torch.int32))
