"""What all layers share in one forward pass. Knows nothing about which layers there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from quire.batch import Batch


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardPass:
    """Made once by the decoder; a layer knows its own places in the tuples."""

    batch: Batch
    # Per RopeSpec of the model: cos, sin [T, 1, dim / 2].
    rotations: tuple[tuple[Tensor, Tensor], ...]
    # Per kind of attention layer: what its backend planned, and alone understands.
    attention_plans: tuple[Any, ...]
