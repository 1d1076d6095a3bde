"""A checkpoint without files, for tests of what reads one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class MemoryCheckpoint:
    """Tensors that are in memory already."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)
        self.num_bytes = sum(tensor.nbytes for tensor in self._tensors.values())

    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor:
        tensor = self._tensors[name]
        return tensor if index is None else tensor[index]
