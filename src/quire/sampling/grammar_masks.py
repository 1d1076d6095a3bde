"""Forbids the tokens that grammars forbid, where rows are sampled by operation.

It is the last of all processors, so that none of them can allow such a token again.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from quire.sampling.logits_processor import SampleStep, Selection, upload
from quire.step import JoinedRow
from quire.structured import FREE


class MaskSource(Protocol):
    """Knows what each constrained row may write next."""

    num_words: int

    def fill(self, rows_cpu: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Write the masks of those of these rows that have one to the first lines of ``masks``;
        returns their places among ``rows_cpu``."""
        ...

    def errors(self, rows_cpu: np.ndarray) -> dict[int, str]: ...


class NoMasks:
    """For a sampler whose rows are never constrained."""

    num_words = 0

    def fill(self, rows_cpu: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return np.zeros(0, dtype=np.int64)

    def errors(self, rows_cpu: np.ndarray) -> dict[int, str]:
        return {}


class GrammarMasks:
    """Applies the masks of a step. They are filled after the forward was enqueued, so that a GPU
    has work meanwhile."""

    def __init__(self, source: MaskSource, device: torch.device) -> None:
        self._source = source
        self._device = device

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

    def _forbid(self, logits: Tensor, places_cpu: np.ndarray, masks: np.ndarray) -> None:
        """Apply ``masks`` [N, words] to the lines ``places_cpu`` [N] of ``logits``."""
        forbidden = self._forbidden(masks, logits.shape[1])
        if len(masks) == len(logits):
            logits.masked_fill_(forbidden, -torch.inf)
        elif self._device.type == "cpu":
            for place, line in zip(places_cpu.tolist(), forbidden, strict=True):
                logits[place].masked_fill_(line, -torch.inf)
        else:
            places = upload(places_cpu, self._device)
            part = logits.index_select(0, places).masked_fill_(forbidden, -torch.inf)
            logits.index_copy_(0, places, part)

    def _forbidden(self, masks: np.ndarray, vocab_size: int) -> Tensor:
        """Which tokens the ``masks`` [N, words] forbid; bool [N, V]."""
        if self._device.type == "cpu":
            bits = np.unpackbits((~masks).view(np.uint8), axis=1, bitorder="little")
            return torch.from_numpy(bits[:, :vocab_size]).view(torch.bool)
        words = upload(masks, self._device)
        bits_of = torch.arange(32, dtype=torch.int32, device=self._device)
        return (((words.unsqueeze(2) >> bits_of) & 1) == 0).flatten(1)[:, :vocab_size]
