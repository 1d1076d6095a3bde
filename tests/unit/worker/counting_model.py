"""A model whose next token is arithmetic on what its KV cache holds.

A wrong position, slot, block table, window or copy changes the sum, so that tokens equal to
``next_token``'s prove that the worker built its batches right.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.batch import Batch
from quire.kv_layout import KVLayout, LayerKV

VOCAB_SIZE = 97
WINDOW = 6


def next_token(token_ids: list[int]) -> int:
    """What the model says after ``token_ids``."""
    weighed = [(place + 1) * token for place, token in enumerate(token_ids)]
    return (sum(weighed) + 3 * sum(weighed[-WINDOW:])) % VOCAB_SIZE


def continuation(prompt: list[int], count: int) -> list[int]:
    """The ``count`` greedy tokens after ``prompt``."""
    token_ids = list(prompt)
    for _ in range(count):
        token_ids.append(next_token(token_ids))
    return token_ids[len(prompt) :]


class CountingModel:
    """Two layers, one of them with a window: two layer groups that share one tensor."""

    kv_layout = KVLayout.of(
        (
            LayerKV(num_kv_heads=1, head_dim=1),
            LayerKV(num_kv_heads=1, head_dim=1, window=WINDOW),
        )
    )

    def forward(self, batch: Batch) -> Tensor:
        """Keys are token ids, values are places; a layer's output is the sum of their products."""
        sums = []
        for layer, kind in enumerate(self.kv_layout.layers):
            group = batch.groups[batch.layer_groups[layer]]
            keys, values = batch.kv_caches[layer].flatten(1).unbind(0)
            keys.index_copy_(0, group.slot_mapping, batch.input_ids.float())
            values.index_copy_(0, group.slot_mapping, batch.positions.float() + 1)
            sums.append(self._attend(keys * values, group.block_table, batch, kind.window))
        return batch.lines_of_outputs(torch.stack(sums, dim=1))

    def logits(self, hidden: Tensor) -> Tensor:
        best = (hidden[:, 0] + 3 * hidden[:, 1]).remainder(VOCAB_SIZE)
        distance = (torch.arange(VOCAB_SIZE) - best[:, None]).abs()
        return -distance.float()

    def best_tokens(self, hidden: Tensor) -> Tensor | None:
        """Only logits tell."""
        return None

    def _attend(
        self, products: Tensor, block_table: Tensor, batch: Batch, window: int | None
    ) -> Tensor:
        block_size = batch.kv_caches[0].shape[2]
        offsets = torch.arange(block_size)
        slots = (block_table.long()[:, :, None] * block_size + offsets).flatten(1)  # [R, B * size]
        place = torch.arange(len(batch.positions))
        owner = torch.searchsorted(batch.query_start[1:], place.int(), right=True)
        visible = torch.arange(slots.shape[1]) <= batch.positions[:, None]
        if window is not None:
            visible &= torch.arange(slots.shape[1]) > batch.positions[:, None] - window
        return products[slots[owner]].where(visible, 0).sum(dim=1)
