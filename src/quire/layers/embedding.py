"""The first part of a decoder: from token ids, and perhaps positions, to vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.layers.linear import Linear
from quire.layers.norm import build_norm
from quire.layers.spec import EmbeddingSpec, LearnedPositionsSpec
from quire.weights.reader import TensorReader

Step = Callable[[Tensor, Tensor], Tensor]  # (h [T, E], positions [T]) -> h


class Embedding:
    """Looks up rows of a table, then takes the further steps that the spec asks for."""

    def __init__(self, spec: EmbeddingSpec) -> None:
        self._spec = spec
        self.weight: Tensor  # [V, E]
        self._steps: tuple[Step, ...]

    def load(self, reader: TensorReader, prefix: str) -> None:
        spec = self._spec
        shape = (spec.vocab_size, spec.inner_size or spec.hidden_size)
        self.weight = reader.read(f"{prefix}.weight", shape)
        self._steps = tuple(_load_steps(spec, reader, prefix, self.weight.dtype))

    def __call__(self, input_ids: Tensor, positions: Tensor) -> Tensor:
        """Vectors [T, E] of token ids [T] at positions [T], which the caller may overwrite."""
        h = F.embedding(input_ids, self.weight)
        for step in self._steps:
            h = step(h, positions)
        return h


def _load_steps(
    spec: EmbeddingSpec, reader: TensorReader, prefix: str, dtype: torch.dtype
) -> Iterator[Step]:
    if spec.inner_size is not None:
        up = Linear(spec.inner_size, {"up": spec.hidden_size}, bias=False)
        up.load(reader, prefix)
        yield lambda h, positions: up(h)
    if spec.positions is not None:
        yield _load_positions(spec.positions, spec.hidden_size, reader, prefix)
    if spec.scale != 1.0:
        # rounded to the model's dtype, as in training
        scale = torch.tensor(spec.scale, dtype=dtype, device=reader.device)
        yield lambda h, positions: h * scale
    if spec.norm is not None:
        norm = build_norm(spec.norm)
        norm.load(reader, f"{prefix}.norm")
        yield lambda h, positions: norm(h)


def _load_positions(
    spec: LearnedPositionsSpec, hidden_size: int, reader: TensorReader, prefix: str
) -> Step:
    shape = (spec.num_positions + spec.offset, hidden_size)
    table = reader.read(f"{prefix}.positions.weight", shape)[spec.offset :]
    return lambda h, positions: h + F.embedding(positions, table)
