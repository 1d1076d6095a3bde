"""What all layers share in one forward pass. Knows nothing about which layers there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quire.batch import Batch, lines_at


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardPass:
    """Made by the decoder for each step; a layer knows its own indices into the tuples."""

    batch: Batch
    # Per RopeSpec of the model: cos, sin [T, 1, dim / 2].
    rotations: tuple[tuple[Tensor, Tensor], ...]
    # Per kind of attention layer: what its backend planned, which only that backend understands.
    attention_plans: tuple[Any, ...]
    # The tokens that are computed beyond their keys and values; None: all of them. In the last
    # layer, those whose hidden states are wanted. The pass's plans are of these tokens alone.
    outputs: Tensor | None = None  # [S] int64

    def narrowed(self, x: Tensor) -> Tensor:
        """The lines of x [T, ...] that are `outputs`, [S, ...]; x itself where that is None."""
        return lines_at(x, self.outputs)
