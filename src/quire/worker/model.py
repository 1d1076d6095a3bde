"""What the worker needs of a model. Knows nothing about how one is made."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quire.batch import Batch


class Model(Protocol):
    """A decoder with its weights."""

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [S, E] of ``outputs`` after the final norm; keys and values of all tokens
        are in ``kv_caches``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[S, E] to [S, V], in the model's dtype or float32."""
        ...
