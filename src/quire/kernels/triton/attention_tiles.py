"""Where the tiles of a mixed step lie, found once for the layers that share a plan.

A graph has room for as many rows as a step may have. Most of its tiles are of rows that are not
there or have one query, which another launch takes: programs for them end at once if all tiles that
there are come first, and nobody has to look for his.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_COMPARED = 8192  # rows times tiles of one program: what its registers hold
_TILES = 64  # of one program, at most


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
    """[num_tiles, 2] int32: the row of each tile and its first query in it, of rows with several
    queries; behind them row -1. ``query_start`` [R + 1]."""
    out = torch.empty(num_tiles, 2, dtype=torch.int32, device=query_start.device)
    num_rows = len(query_start) - 1
    rows = triton.next_power_of_2(num_rows)
    tiles = max(1, min(_TILES, _COMPARED // rows))
    launcher_of(_prompt_tiles_kernel, (triton.cdiv(num_tiles, tiles),))(
        out, query_start, num_rows, num_tiles,
        BLOCK_Q=block_q, ROWS=rows, TILES=tiles, **dependent_launch(),
    )  # fmt: skip
    return out
