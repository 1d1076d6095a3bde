"""A weight reader over tensors in memory, for tests of single layers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from quire.layers.spec import Shapes
from quire.weights.reader import LoadReport


class MemoryReader:
    """Hands out the tensors it was given, and checks the shapes asked for."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)
        self.device = torch.device("cpu")

    @classmethod
    def random(
        cls, shapes: Shapes, prefix: str, *, dtype: torch.dtype = torch.float32
    ) -> MemoryReader:
        generator = torch.Generator().manual_seed(0)
        return cls(
            {
                f"{prefix}.{name}": torch.randn(shape, generator=generator).to(dtype)
                for name, shape in shapes.items()
            }
        )

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor:
        assert self.tensors[name].shape == shape
        tensor = self.tensors[name]
        return tensor.clone() if dtype is None else tensor.to(dtype, copy=True)

    def report(self) -> LoadReport:
        return LoadReport(bytes_read=0, unused=())
