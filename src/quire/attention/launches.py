"""How a step is divided into launches of our own Triton kernels, and how many processors there are.

One launch takes the rows with one query, another the rest. In a mixed graph both are given all
rows, since only the device knows which is which.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quire.batch import Batch

_INTERPRETED_PROCESSORS = 8  # without a GPU; enough for the keys to be split


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """The rows of one launch, and their tokens in the batch."""

    tokens: slice
    block_table: Tensor  # [R, B]
    seq_lens: Tensor  # [R]
    query_start: Tensor  # [R + 1], each row's first token, counted from that of the launch
    is_decode: bool
    is_mixed: bool = False
    order: Tensor | None = None  # these two as of `kernels.triton.attention.paged_attention`
    tiles: Tensor | None = None


def plan_launches(batch: Batch, group: int) -> tuple[Launch, ...]:
    """The launches of a step for one layer of a group."""
    table = batch.groups[group].block_table
    num_decode, num_rows = batch.num_decode_rows, len(batch.seq_lens)
    if num_decode is None:
        return tuple(
            Launch(
                tokens=slice(None),
                block_table=table,
                seq_lens=batch.seq_lens,
                query_start=batch.query_start,
                is_decode=is_decode,
                is_mixed=True,
            )
            for is_decode in (True, False)
        )
    launches = []
    if num_decode:
        launches.append(_launch_of(batch, table, 0, num_decode, is_decode=True))
    if num_decode < num_rows:
        launches.append(_launch_of(batch, table, num_decode, num_rows, is_decode=False))
    return tuple(launches)


def _launch_of(batch: Batch, table: Tensor, first: int, last: int, *, is_decode: bool) -> Launch:
    """The launch of rows ``first`` to ``last``: the decode rows, or all rows behind them."""
    return Launch(
        # Decode rows have one token each, so ``first`` is the index of a row and of its token.
        tokens=slice(first, last if is_decode else None),
        block_table=table[first:last],
        seq_lens=batch.seq_lens[first:last],
        query_start=batch.query_start[first:] - first if first else batch.query_start,
        is_decode=is_decode,
        order=_order_of(batch, last) if is_decode else None,
    )


def _order_of(batch: Batch, num_decode: int) -> Tensor:
    """The order in which to begin the decode rows, the batch's first ones.

    Where the batch has none it is that of the rows, so that all decode steps run the same kernel.
    """
    if batch.decode_order is not None:
        return batch.decode_order
    return batch.query_start[:num_decode]  # 0, 1, 2, ...: each has one token


def count_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return _INTERPRETED_PROCESSORS
    return torch.cuda.get_device_properties(device).multi_processor_count
