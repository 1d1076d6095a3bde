"""The tensors of one forward pass.

Shapes, here and in every docstring: T tokens of the step, R rows, B block-table entries a row,
H query heads, K key-value heads, D head size, E hidden size, V vocabulary, S rows that sample.
Tokens are laid out row after row; rows that compute a single token come first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class SharedBlocks:
    """Rows of a decode step that begin with the same blocks, read once for all of them."""

    members: Tensor  # [R] int32, places in the batch of the rows that share, then -1
    num_blocks: Tensor  # [R] int32, how many of a row's first blocks are shared; 0: none


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupBatch:
    """What the layers of one layer group share: where their keys and values are."""

    block_table: Tensor  # [R, B] int32; entries past a row's length are 0, the null block
    slot_mapping: Tensor  # [T] int64; block * block_size + offset
    shared: SharedBlocks | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Everything a forward needs besides the weights. Tensors named ``*_cpu`` are on the host, the
    others on the model's device."""

    input_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    query_start: Tensor  # [R + 1] int32, prefix sums of the rows' query lengths
    seq_lens: Tensor  # [R] int32, tokens visible to the row's last query: computed + scheduled
    query_start_cpu: Tensor  # [R + 1] int32
    seq_lens_cpu: Tensor  # [R] int32
    # How many rows, which come first, have one query token. None in a mixed graph, where only the
    # device knows: its shapes are a bucket's, its `*_cpu` fields and maxima upper bounds.
    num_decode_rows: int | None
    max_query_len: int
    max_seq_len: int
    groups: tuple[GroupBatch, ...]
    # Per attention layer, [2, num_blocks, block_size, K, D], or [1, ...] where values are part of
    # the keys; how it lies in memory is the device's.
    kv_caches: tuple[Tensor, ...]
    layer_groups: tuple[int, ...]  # per attention layer, its index into `groups`
    outputs: Tensor | None = None  # [S] int64, the tokens whose hidden states are wanted; or all
    # Places of decode rows, longest row first: the best order to compute attention in.
    decode_order: Tensor | None = None  # [R] int32

    def lines_of_outputs(self, x: Tensor) -> Tensor:
        """The entries [S, ...] of x [T, ...] for the tokens whose hidden states are wanted."""
        return lines_at(x, self.outputs)

    @property
    def device(self) -> torch.device:
        return self.input_ids.device


def lines_at(x: Tensor, places: Tensor | None) -> Tensor:
    """The entries [S, ...] of x [T, ...] at ``places`` [S]; x itself where that is None."""
    return x if places is None else x.index_select(0, places)
