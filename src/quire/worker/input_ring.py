"""A ring of slots that the host writes, one per step, and fixed device memory that graphs read.

    host       opens slot i, writes it, launches a step's graphs, confirms        (i goes round)
    graphs     fetch the slot whose turn it is into `memory`, pass the turn on, compute

Graphs fetch with a kernel, which reads the host's memory: a copy would run on another engine of the
device, and kernels start late after that. The turn is kept on the device, so that a captured graph
works for all slots.

The contract: between `open` and `confirm` the device fetches exactly once, by a graph that is
replayed or recorded (which runs it once), or by `enqueue_fetch`. If something raises in between, it
is unknown whether it did: the next `open` sets the turn right. One event per slot tells that its
step is done; whatever a step leaves for the host may rely on it, too (`keep`).

Knows nothing about what is in the slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 64  # bytes; kernels are compiled for pointers that are multiples of 16
WORD_BYTES = 4

# `kernels.reference.fetch.fetch` or its twin: (target, slots, turn, number of words)
Fetch = Callable[[Tensor, Tensor, Tensor, int], None]


class Unread(Protocol):
    """What a step left for the host in memory of its slot, and the host has not read yet."""

    def settle(self) -> None:
        """Read it now. The step is done, and the next one of its slot is about to be launched."""
        ...


def aligned(num_bytes: int) -> int:
    return -(-num_bytes // ALIGNMENT) * ALIGNMENT


class InputRing:
    """The ring. With more slots than steps in flight the host never waits for one."""

    def __init__(
        self, *, num_slots: int, num_bytes: int, fetch: Fetch, device: torch.device
    ) -> None:
        is_cuda = device.type == "cuda"
        shape = (num_slots, aligned(num_bytes) // WORD_BYTES)
        self._slots = torch.zeros(shape, dtype=torch.int32, pin_memory=is_cuda)
        self._target = torch.zeros(shape[1], dtype=torch.int32, device=device)
        self._turn = torch.zeros(2, dtype=torch.int32, device=device)
        self._done = [torch.cuda.Event() for _ in range(num_slots)] if is_cuda else []
        self._unread: list[Unread | None] = [None] * num_slots
        self._fetch = fetch
        self._slot = 0  # the slot whose turn it is when all that was enqueued is done
        self._is_open = False
        self.slots: list[np.ndarray] = list(self._slots.numpy().view(np.uint8))  # [bytes] each
        self.memory = self._target.view(torch.uint8)  # [bytes]
        self.turn = self._turn  # [2] int32, on the device

    def open(self) -> int:
        """The slot to write for the next step."""
        if self._is_open:  # its step failed
            self._close()
            self._turn[:1].fill_(self._slot)
        slot = self._slot
        if self._done and not self._done[slot].query():
            self._done[slot].synchronize()  # sync: only where more steps are in flight than slots
        unread = self._unread[slot]
        if unread is not None:
            self._unread[slot] = None
            unread.settle()
        self._is_open = True
        return slot

    def enqueue_fetch(self, num_bytes: int) -> None:
        """Enqueue what graphs begin with: a fetch of the slot's first bytes into `memory`."""
        self._fetch(self._target, self._slots, self._turn, aligned(num_bytes) // WORD_BYTES)

    def confirm(self) -> int:
        """Note that all of the step was enqueued, a fetch first; returns the step's slot."""
        assert self._is_open, "nothing was sent that a graph could fetch"
        return self._close()

    def fetch(self, num_bytes: int) -> None:
        """Fetch the slot's first bytes by operation, and confirm."""
        self.enqueue_fetch(num_bytes)
        self.confirm()

    def done(self, slot: int) -> torch.cuda.Event | None:
        """The event of the step that has the slot; None: it is done (on a CPU)."""
        return self._done[slot] if self._done else None

    def keep(self, slot: int, unread: Unread) -> None:
        """Have ``unread`` settled before the slot is used again."""
        self._unread[slot] = unread

    def _close(self) -> int:
        """Mark the slot as free when all that was enqueued so far is done; returns it."""
        slot = self._slot
        if self._done:
            self._done[slot].record()
        self._slot = (slot + 1) % len(self.slots)
        self._is_open = False
        return slot
