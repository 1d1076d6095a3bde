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
    # In the last layer only the tokens whose hidden states are wanted go on after attention.
    is_last: bool = False

    def narrowed(self, x: Tensor) -> Tensor:
        """x [T, E] behind attention: lines of the tokens that go on."""
        return self.batch.lines_of_outputs(x) if self.is_last else x
