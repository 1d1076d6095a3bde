"""The best token of each line: a head's product and its argmax in one launch (`best_column.cu`).

Logits are neither written nor read again. The twins are `F.linear` and
torch's argmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from quire.kernels.cuda.launch import most_clusters
from quire.kernels.cuda.product_tile import best_search_tiles
from quire.kernels.cuda.tiled import TiledKernel

_MOST_LINES = 4096


class BestColumn:
    """The column n of the largest x Wᵀ [T, N] in each line, rounded as that would be."""

    def __init__(self, weight: Tensor) -> None:
        n, k = weight.shape
        self._kernel = TiledKernel(
            "best_column", weight, best_search_tiles(n, k, most_clusters=most_clusters)
        )
        # The kernel leaves zeros in both, for its next launch.
        self._keys = torch.zeros(_MOST_LINES, dtype=torch.int64, device=weight.device)
        self._ended = torch.zeros(1, dtype=torch.int32, device=weight.device)

    def suits(self, lines: int) -> bool:
        """Whether this is faster than a product and an argmax of it."""
        return 1 < lines <= _MOST_LINES and self._kernel.suits(lines)

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, K] -> [T] int64."""
        best = torch.empty(len(x), dtype=torch.int64, device=x.device)
        self._kernel(x, best, self._keys, self._ended)
        return best
