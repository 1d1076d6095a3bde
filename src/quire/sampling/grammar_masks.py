"""Forbids the tokens that grammars forbid, where rows are sampled by operation.

It is the last of all processors, so that none of them can allow such a token again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from torch import Tensor

from quire.sampling.logits_processor import SampleStep, Selection
from quire.step import JoinedRow
from quire.structured import FREE

Forbid = Callable[[Tensor, np.ndarray, np.ndarray], None]  # `Choice.forbid`


class MaskSource(Protocol):
    """Knows what each constrained row may write next."""

    num_words: int

    def fill(self, rows_cpu: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Write the masks of those of these rows that have one to the first lines of ``masks``;
        returns their places among ``rows_cpu``."""
        ...

    def errors(self, rows_cpu: np.ndarray) -> dict[int, str]: ...


class GrammarMasks:
    """Applies the masks of a step. They are filled after the forward was enqueued, so that a GPU
    has work meanwhile."""

    def __init__(self, source: MaskSource, forbid: Forbid) -> None:
        self._source = source
        self._forbid = forbid

    def add_request(self, joined: JoinedRow) -> bool:
        return joined.constraint is not FREE

    def remove_request(self, row: int) -> None:
        pass

    def apply(self, logits: Tensor, selection: Selection, step: SampleStep) -> dict[int, str]:
        masks = np.empty((len(selection), self._source.num_words), dtype=np.int32)
        chosen = self._source.fill(selection.rows_cpu, masks)
        if len(chosen):
            self._forbid(logits, selection.positions_cpu[chosen], masks[: len(chosen)])
        return self._source.errors(selection.rows_cpu)
