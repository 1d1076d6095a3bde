"""Host buffers that the device copies from, used in turn. Knows nothing about what is in them.

A copy runs some time after the call that asks for it, so a buffer may be written again only when
its last copy is done. With more buffers than steps in flight the host never waits for that.
"""

from __future__ import annotations

import torch
from torch import Tensor


class HostBuffer:
    """Bytes that the host writes and sends; pinned where there is a GPU."""

    def __init__(self, num_bytes: int, device: torch.device) -> None:
        is_cuda = device.type == "cuda"
        self._memory = torch.empty(num_bytes, dtype=torch.uint8, pin_memory=is_cuda)
        self.array = self._memory.numpy()
        self._sent = torch.cuda.Event() if is_cuda else None

    def send(self, num_bytes: int, target: Tensor) -> None:
        """Enqueue the copy of the first bytes to ``target`` (uint8)."""
        target[:num_bytes].copy_(self._memory[:num_bytes], non_blocking=True)
        if self._sent is not None:
            self._sent.record()

    def wait(self) -> None:
        if self._sent is not None:
            self._sent.synchronize()  # sync: done long ago, unless the device is far behind


class HostBuffers:
    """``count`` buffers, handed out in turn when they may be written."""

    def __init__(self, count: int, num_bytes: int, device: torch.device) -> None:
        self._device = device
        self._buffers = [HostBuffer(num_bytes, device) for _ in range(count)]
        self._turn = 0

    def next(self, num_bytes: int) -> HostBuffer:
        """A buffer of at least ``num_bytes``."""
        self._turn = (self._turn + 1) % len(self._buffers)
        buffer = self._buffers[self._turn]
        buffer.wait()
        if len(buffer.array) < num_bytes:
            buffer = HostBuffer(2 * num_bytes, self._device)
            self._buffers[self._turn] = buffer
        return buffer
