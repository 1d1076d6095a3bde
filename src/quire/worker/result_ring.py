"""The tokens of steps on their way to the host, in one slot per step, as many as of the inputs.

The last kernel of a step writes them to pinned memory, so nothing is copied and one event tells
that the whole step is done. Knows nothing about how they were sampled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from quire.step import Int32
from quire.worker.input_ring import InputRing
from quire.worker.step_timeout import StepLabel, StepTimeout

# `kernels.reference.deliver.deliver` or its twin:
# (token ids, rows, lengths, token ids of all rows, results, turn)
Deliver = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], None]


class ResultRing:
    """The ring of results, in which a step has the same slot as in the ring of the inputs."""

    def __init__(
        self, inputs: InputRing, *, max_rows: int, of_rows: Tensor, deliver: Deliver
    ) -> None:
        """``of_rows``: the token ids of all rows, to which new tokens are written, too."""
        is_cuda = of_rows.is_cuda
        shape = (len(inputs.slots), max_rows)
        self._inputs = inputs
        self._of_rows = of_rows
        self._results = torch.zeros(shape, dtype=torch.int32, pin_memory=is_cuda)
        self._deliver = deliver
        self._slots: list[np.ndarray] = list(self._results.numpy())

    def enqueue(self, token_ids: Tensor, rows: Tensor, lengths: Tensor) -> None:
        """Enqueue what graphs end with: new tokens go to their rows, at position ``lengths``, and
        to the slot."""
        self._deliver(token_ids, rows, lengths, self._of_rows, self._results, self._inputs.turn)

    def take(self, slot: int, count: int) -> Delivered:
        """The first ``count`` tokens of the step that has the slot, which need not be done."""
        delivered = Delivered(self._slots[slot][:count], self._inputs.done(slot))
        self._inputs.keep(slot, delivered)
        return delivered


class Delivered:
    """The tokens that a step in flight writes to its slot."""

    __slots__ = ("_done", "_place", "_tokens")

    def __init__(self, place: np.ndarray, done: torch.cuda.Event | None) -> None:
        self._place = place
        self._done = done
        self._tokens: Int32 | None = None

    @property
    def is_done(self) -> bool:
        return self._tokens is not None or self._done is None or self._done.query()

    def settle(self) -> None:
        if self._tokens is None:
            self._tokens = self._place.copy()

    def read(self, timeout: StepTimeout, label: StepLabel) -> Int32:
        """Wait for the step, if it is not done, and return its tokens."""
        if self._tokens is None:
            if self._done is not None:
                timeout.wait(self._done, label)  # sync: the host reads the result
            self.settle()
        assert self._tokens is not None
        return self._tokens
