"""Looks up in the rows' state what a step needs of its tokens: ids, positions, slots, tables.

Reads device tensors only, and shapes do not depend on their values: a graph can capture it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class RowState:
    """Tokens and blocks of all rows; sampled tokens are here before the host has seen them."""

    token_ids: Tensor  # [rows, width] int32
    block_tables: Tensor  # [groups, rows, B] int32
    block_size: int

    @property
    def longest(self) -> int:
        """The most tokens of one row that are ever computed; one more may be sampled."""
        return self.token_ids.shape[1] - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTokens:
    """What the forward needs to know of a step with T tokens of R rows."""

    input_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    seq_lens: Tensor  # [R] int32
    slots: Tensor  # [groups, T] int64
    block_tables: Tensor  # [groups, R, B] int32


def decode_tokens(state: RowState, rows: Tensor, lengths: Tensor) -> StepTokens:
    """For a step of the last token of each of ``rows`` [R], which have ``lengths`` [R] tokens.

    Both are int64.
    """
    positions = lengths - 1
    return look_up(state, rows, rows, positions, lengths.to(torch.int32))


def mixed_tokens(
    state: RowState,
    rows: Tensor,
    starts: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    num_tokens: int,
) -> StepTokens:
    """For a step in which tokens ``query_start[i]`` to ``query_start[i + 1]`` are of ``rows[i]``.

    The position of the step's token t is ``starts[i] + t``, at most the last one that a row has.
    ``query_start`` is int32.
    """
    place = torch.arange(num_tokens, device=rows.device)
    owner = torch.searchsorted(query_start[1:], place.to(torch.int32), right=True)
    positions = (starts.index_select(0, owner) + place).clamp(max=state.longest - 1)
    return look_up(state, rows, rows.index_select(0, owner), positions, seq_lens)


def look_up(
    state: RowState,
    rows: Tensor,
    token_rows: Tensor,
    positions: Tensor,
    seq_lens: Tensor,
    *,
    width: int | None = None,
) -> StepTokens:
    """For a step of tokens at ``positions`` [T] of ``token_rows`` [T], each one of ``rows`` [R].

    Block tables are cut to ``width`` entries.
    """
    token_ids, tables, block_size = state.token_ids, state.block_tables, state.block_size
    input_ids = token_ids.view(-1).index_select(0, token_rows * token_ids.shape[1] + positions)
    entries = token_rows * tables.shape[2] + positions // block_size
    blocks = tables.flatten(1).index_select(1, entries).to(torch.int64)  # [groups, T]
    return StepTokens(
        input_ids=input_ids.to(torch.int64),
        positions=positions,
        seq_lens=seq_lens,
        slots=blocks * block_size + positions % block_size,
        block_tables=tables[:, :, :width].index_select(1, rows),
    )
