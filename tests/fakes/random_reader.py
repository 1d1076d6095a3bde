"""Random weights with which a model says something: those of `DummyReader` are for speed alone."""

from __future__ import annotations

import torch
from torch import Tensor

from quire.weights.reader import DummyReader


class RandomReader(DummyReader):
    """Gains of norms are one, biases zero, and others of a size at which differences show."""

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor:
        tensor = torch.zeros(shape, dtype=dtype or self._dtype)
        if name.endswith(".bias"):
            return tensor
        if "norm" in name:
            return tensor.fill_(1)
        return tensor.normal_(0, 0.02, generator=self.generator_of(name))
