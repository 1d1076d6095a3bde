"""The first part of a decoder: token ids, and perhaps positions, to vectors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.layers.spec import EmbeddingSpec, LearnedPositionsSpec
from quire.weights.reader import TensorReader


class Embedding:
    """Rows of a table."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self._spec = spec
        self.weight: Tensor  # [V, E]

    def load(self, reader: TensorReader, prefix: str) -> None:
        shape = (self._spec.vocab_size, self._spec.hidden_size)
        self.weight = reader.read(f"{prefix}.weight", shape)

    def __call__(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return F.embedding(input_ids, self.weight)


class ScaledEmbedding(Embedding):
    """Rows times a constant, which is rounded to the model's dtype as it was in training."""

    def load(self, reader: TensorReader, prefix: str) -> None:
        super().load(reader, prefix)
        self._scale = torch.tensor(
            self._spec.scale, dtype=self.weight.dtype, device=self.weight.device
        )

    def __call__(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return super().__call__(input_ids, positions) * self._scale


class PositionedEmbedding(Embedding):
    """Rows of two tables, one for the token and one for its position."""

    def __init__(self, spec: EmbeddingSpec, positions: LearnedPositionsSpec) -> None:
        super().__init__(spec)
        self._offset = positions.offset
        self._table: Tensor  # [positions, E], without the offset's rows

    def load(self, reader: TensorReader, prefix: str) -> None:
        super().load(reader, prefix)
        name = "positions.weight"
        table = reader.read(f"{prefix}.{name}", self._spec.parameters()[name])
        self._table = table[self._offset :]

    def __call__(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        return super().__call__(input_ids, positions) + F.embedding(positions, self._table)


def build_embedding(spec: EmbeddingSpec) -> Embedding:
    if spec.positions is not None:
        return PositionedEmbedding(spec, spec.positions)
    return Embedding(spec) if spec.scale == 1.0 else ScaledEmbedding(spec)
