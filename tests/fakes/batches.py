"""Batches made by hand: rows of known tokens, with KV blocks scattered over a small cache.

Stands in for scheduler, block pool and worker where only the model is tested.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from quire.batch import Batch, GroupBatch
from quire.kv_layout import KVLayout

_GARBAGE = 1e4  # what blocks hold before they are written: finite, and loud if it is ever seen


class FakeRows:
    """Rows whose tokens are all known; `batch` computes some of them and counts them computed."""

    def __init__(
        self,
        layout: KVLayout,
        rows: Sequence[Sequence[int]],
        *,
        block_size: int = 4,
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        for_gpu: bool = False,
    ) -> None:
        """``for_gpu``: a block's tokens outside of its heads, as a GPU's kernels want them."""
        self.layout = layout
        self.token_ids = [list(row) for row in rows]
        self.num_computed = [0] * len(rows)
        self._block_size = block_size
        num_blocks = -(-max(map(len, rows)) // block_size)
        total = len(layout.groups) * len(rows) * num_blocks
        order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)) + 1
        # Per group and row; one pool for all groups, block 0 belongs to nobody.
        self._tables = order.int().view(len(layout.groups), len(rows), num_blocks)
        tensors = [
            torch.full((kv.planes, total + 1, kv.num_kv_heads, block_size, kv.head_dim), _GARBAGE)
            .to(dtype)
            .transpose(2, 3)
            for kv in layout.tensors
        ]
        if for_gpu:
            tensors = [tensor.contiguous() for tensor in tensors]
        self.kv_caches = tuple(tensors[index] for index in layout.tensor_of_layer)

    def share_prefix(self, num_blocks: Mapping[int, int]) -> None:
        """Let rows begin with the first ``num_blocks[row]`` blocks of row 0, as if computed."""
        for row, count in num_blocks.items():
            self._tables[:, row, :count] = self._tables[:, 0, :count]
            self.num_computed[row] = count * self._block_size

    def batch(self, num_tokens: Mapping[int, int]) -> tuple[Batch, list[tuple[int, int]]]:
        """Compute the next ``num_tokens[row]`` tokens of each row given.

        Returns the batch and, per token of it, its (row, position). Rows of one token come first.
        """
        rows = sorted(num_tokens, key=lambda row: num_tokens[row] > 1)
        counts = [num_tokens[row] for row in rows]
        starts = [self.num_computed[row] for row in rows]
        places = [
            (row, position)
            for row, start, count in zip(rows, starts, counts, strict=True)
            for position in range(start, start + count)
        ]
        seq_lens = [start + count for start, count in zip(starts, counts, strict=True)]
        assert all(n <= len(self.token_ids[row]) for row, n in zip(rows, seq_lens, strict=True))
        query_start = torch.tensor([0, *counts]).cumsum(0).int()
        for row, length in zip(rows, seq_lens, strict=True):
            self.num_computed[row] = length
        return Batch(
            input_ids=torch.tensor([self.token_ids[row][position] for row, position in places]),
            positions=torch.tensor([position for _, position in places]),
            query_start=query_start,
            seq_lens=torch.tensor(seq_lens).int(),
            query_start_cpu=query_start,
            seq_lens_cpu=torch.tensor(seq_lens).int(),
            num_decode_rows=counts.count(1),
            max_query_len=max(counts),
            max_seq_len=max(seq_lens),
            groups=tuple(
                self._group(group, rows, starts, places) for group in range(len(self._tables))
            ),
            kv_caches=self.kv_caches,
            layer_groups=self.layout.group_of_layer,
        ), places

    def _group(
        self, group: int, rows: list[int], starts: list[int], places: list[tuple[int, int]]
    ) -> GroupBatch:
        table = self._tables[group, rows].clone()
        window = self.layout.groups[group].window
        for place, start in enumerate(starts):
            # Blocks that the window has passed are given back: their entries are the null block.
            first_visible = 0 if window is None else max(0, start - window + 1)
            table[place, : first_visible // self._block_size] = 0
        return GroupBatch(block_table=table, slot_mapping=self._slots(group, places))

    def _slots(self, group: int, places: list[tuple[int, int]]) -> Tensor:
        size = self._block_size
        return torch.tensor(
            [
                int(self._tables[group, row, position // size]) * size + position % size
                for row, position in places
            ]
        )
