"""Finds the tiles of a mixed step's prompts, once for all layers that share a plan.

A graph has room for as many rows as a step may have. Most of its tiles belong to rows that do not
exist, or have one query and are another launch's. Here the real tiles are listed first, so that the
programs of all others end at once, and no program has to search for its tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_COMPARED = 8192  # rows times tiles that one program compares: what its registers hold
_TILES = 64  # the most of one program


@triton.jit(do_not_specialize=["num_rows", "num_tiles"])
def _prompt_tiles_kernel(
    out, query_start, num_rows, num_tiles,
    BLOCK_Q: tl.constexpr, ROWS: tl.constexpr, TILES: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    rows = tl.arange(0, ROWS)
    is_row = rows < num_rows
    starts = tl.load(query_start + rows, mask=is_row, other=0)
    lengths = tl.load(query_start + rows + 1, mask=is_row, other=0) - starts
    counts = tl.where(lengths > 1, tl.cdiv(lengths, BLOCK_Q), 0)
    ends = tl.cumsum(counts, 0)
    tiles = tl.program_id(0) * TILES + tl.arange(0, TILES)
    is_before = ends[None, :] <= tiles[:, None]
    row = tl.sum(is_before.to(tl.int32), 1)
    first = tl.sum(tl.where(is_before, counts[None, :], 0), 1)
    row = tl.where(tiles < tl.sum(counts), row, -1)
    tl.store(out + 2 * tiles, row, mask=tiles < num_tiles)
    tl.store(out + 2 * tiles + 1, (tiles - first) * BLOCK_Q, mask=tiles < num_tiles)


def prompt_tiles(query_start: Tensor, block_q: int, num_tiles: int) -> Tensor:
    """The tiles of all rows with several queries: (row, its first query in the tile).

    [num_tiles, 2] int32; the row is -1 behind the last tile. ``query_start`` is [R + 1].
    """
    out = torch.empty(num_tiles, 2, dtype=torch.int32, device=query_start.device)
    num_rows = len(query_start) - 1
    rows = triton.next_power_of_2(num_rows)
    tiles = max(1, min(_TILES, _COMPARED // rows))
    launcher_of(_prompt_tiles_kernel, (triton.cdiv(num_tiles, tiles),))(
        out, query_start, num_rows, num_tiles,
        BLOCK_Q=block_q, ROWS=rows, TILES=tiles, **dependent_launch(),
    )  # fmt: skip
    return out
