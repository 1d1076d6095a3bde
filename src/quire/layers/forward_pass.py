"""What all layers share in one forward pass. Knows nothing about which layers there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quire.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardPass:
    """Made by the decoder; a layer knows its own places in the tuples."""

    batch: Batch
    # Per RopeSpec of the model: cos, sin [T, 1, dim / 2].
    rotations: tuple[tuple[Tensor, Tensor], ...]
    # Per kind of attention layer: what its backend planned, and alone understands.
    attention_plans: tuple[Any, ...]
    # The tokens that go on behind the layer's keys and values, or all: in the last layer those
    # whose hidden states are wanted. Its plans are of these alone.
    outputs: Tensor | None = None  # [S] int64

    def narrowed(self, x: Tensor) -> Tensor:
        """Of x [T, ...] the lines of the tokens that go on; x itself where all do."""
        return x if self.outputs is None else x.index_select(0, self.outputs)
