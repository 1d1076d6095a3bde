"""Uploads host arrays to the device, many in one copy. Knows nothing about what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from quire.worker.host_buffers import HostBuffers

NUM_BUFFERS = 8  # more than there are uploads of steps in flight
BUFFER_BYTES = 1 << 14
INT64_BYTES = 8


class Uploader:
    """Makes device tensors of arrays, through a few host buffers that it keeps."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers = HostBuffers(NUM_BUFFERS, BUFFER_BYTES, device)

    def __call__(self, arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
        """The one-dimensional integer ``arrays`` as int64 tensors, views of one new tensor.

        int64, since torch indexes with that, and a flat index into token ids can exceed 32 bits.
        """
        lengths = [len(array) for array in arrays]
        num_bytes = sum(lengths) * INT64_BYTES
        host = self._buffers.next(num_bytes)
        np.concatenate(arrays, out=host.array[:num_bytes].view(np.int64))
        uploaded = torch.empty(num_bytes, dtype=torch.uint8, device=self._device)
        host.send(num_bytes, uploaded)
        return uploaded.view(torch.int64).split(lengths)
