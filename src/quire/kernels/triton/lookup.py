"""Looks up in the rows' state what a step needs of its tokens, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.lookup import RowState, StepTokens
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_TOKENS = 32  # of one program
_ENTRIES = 1024  # of a block table, that a program copies at once


@triton.jit
def _owners(query_start, tokens, num_rows, SEARCHES: tl.constexpr):
    """The row of each token: how many rows end at or before it."""
    low = tl.zeros_like(tokens)
    high = low + num_rows
    for _ in tl.static_range(SEARCHES):
        is_open = low < high
        middle = (low + high) // 2
        ends = tl.load(query_start + 1 + middle, mask=is_open, other=0)
        low = tl.where(is_open & (ends <= tokens), middle + 1, low)
        high = tl.where(is_open & (ends > tokens), middle, high)
    return low


@triton.jit(do_not_specialize=["num_rows", "num_tokens", "ids_width", "table_width", "max_rows"])
def _lookup_kernel(
    input_ids, positions_out, seq_lens_out, slots, tables_out,
    rows, starts, query_start, token_ids, tables,
    num_rows, num_tokens, ids_width, table_width, max_rows,
    BLOCK_SIZE: tl.constexpr, GROUPS: tl.constexpr, SEARCHES: tl.constexpr,
    TOKENS: tl.constexpr, ENTRIES: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    # The first programs look up tokens, each of the others copies the block table of one row.
    program = tl.program_id(0)
    token_programs = tl.cdiv(num_tokens, TOKENS)
    if program < token_programs:
        tokens = program * TOKENS + tl.arange(0, TOKENS)
        is_token = tokens < num_tokens
        if SEARCHES == 0:  # one token per row, and `starts` are lengths
            row = tl.load(rows + tokens, mask=is_token, other=0)
            lengths = tl.load(starts + tokens, mask=is_token, other=1)
            tl.store(seq_lens_out + tokens, lengths.to(tl.int32), mask=is_token)
            positions = lengths - 1
        else:
            owner = _owners(query_start, tokens, num_rows, SEARCHES)
            row = tl.load(rows + owner, mask=is_token, other=0)
            positions = tl.load(starts + owner, mask=is_token, other=0) + tokens
            positions = tl.minimum(positions, ids_width - 2)
        tl.store(positions_out + tokens, positions, mask=is_token)
        ids = tl.load(token_ids + row * ids_width + positions, mask=is_token, other=0)
        tl.store(input_ids + tokens, ids.to(tl.int64), mask=is_token)
        for group in tl.static_range(GROUPS):
            entry = (group * max_rows + row) * table_width + positions // BLOCK_SIZE
            block = tl.load(tables + entry, mask=is_token, other=0).to(tl.int64)
            slot = block * BLOCK_SIZE + positions % BLOCK_SIZE
            tl.store(slots + group * num_tokens + tokens, slot, mask=is_token)
    else:
        place = program - token_programs
        group, index = place // num_rows, place % num_rows
        owner_of_table = tl.load(rows + index)
        source = tables + (group * max_rows + owner_of_table) * table_width
        target = tables_out + place.to(tl.int64) * table_width
        for first in range(0, table_width, ENTRIES):
            entries = first + tl.arange(0, ENTRIES)
            is_entry = entries < table_width
            tl.store(target + entries, tl.load(source + entries, mask=is_entry), mask=is_entry)


def decode_tokens(state: RowState, rows: Tensor, lengths: Tensor) -> StepTokens:
    """`reference.lookup.decode_tokens`."""
    seq_lens = torch.empty(len(rows), dtype=torch.int32, device=rows.device)
    return _look_up(state, rows, lengths, seq_lens, seq_lens, len(rows), 0)


def mixed_tokens(
    state: RowState,
    rows: Tensor,
    starts: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    num_tokens: int,
) -> StepTokens:
    """`reference.lookup.mixed_tokens`."""
    searches = len(rows).bit_length()
    return _look_up(state, rows, starts, query_start, seq_lens, num_tokens, searches)


def _look_up(
    state: RowState,
    rows: Tensor,
    starts: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    num_tokens: int,
    searches: int,
) -> StepTokens:
    num_groups, max_rows, table_width = state.block_tables.shape
    device, num_rows = rows.device, len(rows)
    input_ids = torch.empty(num_tokens, dtype=torch.int64, device=device)
    positions = torch.empty_like(input_ids)
    slots = torch.empty(num_groups, num_tokens, dtype=torch.int64, device=device)
    tables = torch.empty(num_groups, num_rows, table_width, dtype=torch.int32, device=device)
    num_programs = triton.cdiv(num_tokens, _TOKENS) + num_groups * num_rows
    launcher_of(_lookup_kernel, (num_programs,))(
        input_ids, positions, seq_lens, slots, tables,
        rows, starts, query_start, state.token_ids, state.block_tables,
        num_rows, num_tokens, state.token_ids.shape[1], table_width, max_rows,
        BLOCK_SIZE=state.block_size, GROUPS=num_groups, SEARCHES=searches,
        TOKENS=_TOKENS, ENTRIES=_ENTRIES, **dependent_launch(),
    )  # fmt: skip
    return StepTokens(
        input_ids=input_ids,
        positions=positions,
        seq_lens=seq_lens,
        slots=slots,
        block_tables=tables,
    )
