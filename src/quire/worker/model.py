"""What the worker needs of a model. Knows nothing about how models are built."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from quire.batch import Batch


class Model(Protocol):
    """A decoder with its weights."""

    def forward(self, batch: Batch) -> Tensor:
        """Hidden states [S, E] of the batch's outputs, after the final norm; keys and values of all
        tokens are written to its ``kv_caches``."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, E], in the model's dtype or float32."""
        ...

    def best_tokens(self, hidden: Tensor) -> Tensor | None:
        """The token of the largest logit of each hidden state [S] int64, of equal ones the first;
        None where `logits` and an argmax are the fastest way to find it."""
        ...
