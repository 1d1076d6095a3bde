"""Readback: copies tensors to the host, behind the device's other work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.worker.step_timeout import StepLabel, StepTimeout

LANDING_BYTES = 1 << 14  # of a landing at least; more where a step's results are larger
ALIGNMENT = 8  # bytes; the largest element


class Readback:
    """Tensors as they are when the steps enqueued so far are done; later steps may overwrite them.

    ``arrays`` waits for those steps, and for nothing enqueued after them.
    """

    def __init__(self, tensors: Sequence[Tensor], owner: Readbacks, label: StepLabel) -> None:
        self._owner = owner
        self._label = label
        self._landing = owner.take(sum(map(_room, tensors)))
        self._host = self._landing.receive(tensors)

    @property
    def is_done(self) -> bool:
        return self._landing.event is None or self._landing.event.query()

    def arrays(self) -> list[np.ndarray]:
        """Wait for the tensors and return them; to be called once, as it gives up their memory."""
        event = self._landing.event
        if event is not None:
            self._owner.timeout.wait(event, self._label)  # sync: the host reads the result
        arrays = [tensor.numpy().copy() for tensor in self._host]
        self._owner.give_back(self._landing)
        return arrays


class Readbacks:
    """Starts readbacks; keeps their host memory for the next ones."""

    def __init__(self, device: torch.device, timeout: StepTimeout) -> None:
        self.timeout = timeout
        self._device = device
        self._free: list[_Landing] = []

    def start(self, tensors: Sequence[Tensor], label: StepLabel) -> Readback:
        return Readback(tensors, self, label)

    def take(self, num_bytes: int) -> _Landing:
        while self._free:
            landing = self._free.pop()
            if landing.num_bytes >= num_bytes:
                return landing  # smaller ones are dropped
        return _Landing(max(num_bytes, LANDING_BYTES), self._device)

    def give_back(self, landing: _Landing) -> None:
        self._free.append(landing)


class _Landing:
    """Host memory for the tensors of one readback; pinned where there is a GPU."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self.num_bytes = num_bytes
        self.event = torch.cuda.Event() if is_cuda else None
        self._memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=is_cuda)
        self._as: dict[torch.dtype, Tensor] = {}  # views of the memory by dtype

    def receive(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Enqueue copies of ``tensors``; returns the tensors in which they arrive."""
        first, host = 0, []
        for tensor in tensors:
            if tensor.dtype not in self._as:
                self._as[tensor.dtype] = self._memory.view(tensor.dtype)
            start = first // tensor.itemsize
            place = self._as[tensor.dtype][start : start + tensor.numel()].view(tensor.shape)
            host.append(place.copy_(tensor, non_blocking=True))
            first += _room(tensor)
        if self.event is not None:
            self.event.record()
        return host


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
