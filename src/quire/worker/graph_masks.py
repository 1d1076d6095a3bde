"""Masks of constrained rows, from the host to the place where sample graphs read them.

    host       |line of each row|masks ...|    a few pinned buffers, in turn
    device     |line of each row|masks ...|    one, at a fixed place

The copy runs on the same stream as the sampling of the step before, and after it. A step without
constrained rows replays graphs that read no masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.step import Int32
from quire.worker.grammar_rows import GrammarRows
from quire.worker.host_buffers import HostBuffers

WORD_BYTES = 4
NO_LINE = -1

# `kernels.reference.bitmask.apply_bitmask` or its twin: (logits, lines, masks)
ApplyBitmask = Callable[[Tensor, Tensor, Tensor], None]


@dataclass(frozen=True, slots=True)
class _Room:
    """The memory for masks, allocated when the first constrained row comes."""

    host: HostBuffers
    device: Tensor  # uint8
    lines: Tensor  # [max_rows] int32, part of `device`
    masks: Tensor  # [max_rows, words] int32, part of `device`


class GraphMasks:
    """The masks of steps with up to ``max_rows`` rows that sample."""

    def __init__(
        self,
        grammars: GrammarRows,
        *,
        max_rows: int,
        num_slots: int,
        apply_bitmask: ApplyBitmask,
        device: torch.device,
    ) -> None:
        self._grammars = grammars
        self._max_rows = max_rows
        self._num_slots = num_slots
        self._apply_bitmask = apply_bitmask
        self._device = device
        self._made: _Room | None = None

    def are_wanted(self, rows_cpu: np.ndarray) -> bool:
        return self._grammars.are_among(rows_cpu)

    def send(self, rows_cpu: Int32) -> None:
        """Fill the masks of a step's rows [S], the first of its bucket, and enqueue their copy.

        Waits for the tokens of the step before, while the device computes this step's forward.
        """
        num_words, max_rows, room = self._grammars.num_words, self._max_rows, self._room()
        host = room.host.next(self._num_bytes(max_rows))
        words = host.array[: self._num_bytes(max_rows)].view(np.int32)
        lines, masks = words[:max_rows], words[max_rows:].reshape(max_rows, num_words)
        places = self._grammars.fill(rows_cpu, masks)
        lines[:] = NO_LINE
        lines[places] = np.arange(len(places), dtype=np.int32)
        host.send(self._num_bytes(len(places)), room.device)

    def apply(self, logits: Tensor) -> None:
        """Forbid tokens in ``logits`` [bucket, V], within a graph."""
        room = self._room()
        self._apply_bitmask(logits, room.lines[: len(logits)], room.masks)

    def _num_bytes(self, num_lines: int) -> int:
        return (self._max_rows + num_lines * self._grammars.num_words) * WORD_BYTES

    def _room(self) -> _Room:
        if self._made is None:
            num_bytes, max_rows = self._num_bytes(self._max_rows), self._max_rows
            device = torch.full((num_bytes,), 0xFF, dtype=torch.uint8, device=self._device)
            words = device.view(torch.int32)  # all -1: no row has a mask
            self._made = _Room(
                host=HostBuffers(self._num_slots, num_bytes, self._device),
                device=device,
                lines=words[:max_rows],
                masks=words[max_rows:].view(max_rows, self._grammars.num_words),
            )
        return self._made
