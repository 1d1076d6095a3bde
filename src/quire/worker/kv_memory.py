"""KV memory: the tensors that hold keys and values.

Block ids are only indices here; which row owns a block is the engine core's business.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from quire.kv_layout import NULL_BLOCK, KVLayout, LayerKV
from quire.step import StepPlan
from quire.worker.upload import Uploader
from quire.worker.zeros import lazy_zeros


class KVMemory:
    """Keys and values of all attention layers, block by block; block 0 is the null block.

    Attention on a CPU reads masked slots, too, and NaN or infinity there would survive the mask
    (0 * NaN is NaN). So all memory starts as zeros, and a block is zeroed again when its next owner
    enters it. Our own GPU kernels read no masked slot, and the backends of other packages make sure
    that what they read is finite.
    """

    def __init__(
        self,
        layout: KVLayout,
        *,
        num_blocks: int,
        block_size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.layout = layout
        self.block_size = block_size
        self.device = device
        self._upload = Uploader(device)
        self._tensors = tuple(
            _zeros(num_blocks, block_size, kv, dtype, device) for kv in layout.tensors
        )
        self.of_layer = tuple(self._tensors[tensor] for tensor in layout.tensor_of_layer)
        # [planes, num_blocks, bytes] of each tensor whose blocks have to be zeroed. NumPy, since
        # these are many short calls, which would cost 3 us each in torch.
        self._blocks: tuple[np.ndarray, ...] = ()
        if device.type == "cpu":
            self._blocks = tuple(
                tensor.transpose(2, 3).flatten(2).view(torch.uint8).numpy()
                for tensor in self._tensors
            )

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors)

    def enter(self, plan: StepPlan, block_tables: np.ndarray) -> None:
        """On a CPU, zero the blocks that a step begins and does not fill.

        ``block_tables`` [groups, rows, B] are those of all rows.
        """
        size = self.block_size
        ends = plan.num_computed + plan.num_scheduled
        last_block = (ends - 1) // size
        begins = (last_block * size >= plan.num_computed) & (ends % size > 0)
        if np.count_nonzero(begins):
            blocks = block_tables[:, plan.rows[begins], last_block[begins]]
            self._zero(blocks.ravel().tolist())

    def clean_null_block(self) -> None:
        """Zero the null block, which is the only one that rows of a warm-up write to."""
        self._zero([NULL_BLOCK])

    def _zero(self, block_ids: list[int]) -> None:
        for of_tensor in self._blocks:
            for block in block_ids:
                of_tensor[:, block] = 0

    def copy_blocks(self, copies: list[tuple[int, int]]) -> None:
        """Copy blocks (source, target) in all layers; sources are read before any is written."""
        pairs = np.asarray(copies)
        sources, targets = self._upload([pairs[:, 0], pairs[:, 1]])
        for tensor in self._tensors:  # index_select would copy the whole of a CPU's strided tensor
            if tensor.dtype.itemsize == 1:
                tensor = tensor.view(torch.uint8)  # torch has no such copy for fp8
            tensor.index_copy_(1, targets, tensor[:, sources])


def _zeros(
    num_blocks: int, block_size: int, kv: LayerKV, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Zeros [planes, num_blocks, block_size, K, D].

    On a CPU one head's tokens of a block lie together, so that attention gathers long runs; GPU
    kernels need all heads of a token together.
    """
    planes, heads, head_dim = kv.planes, kv.num_kv_heads, kv.head_dim
    if device.type == "cpu":
        by_head = lazy_zeros((planes, num_blocks, heads, block_size, head_dim), dtype, device)
        return by_head.transpose(2, 3)
    return lazy_zeros((planes, num_blocks, block_size, heads, head_dim), dtype, device)
