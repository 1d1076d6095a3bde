"""Readback: a tensor on its way to the host, behind the device's other work."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class Readback:
    """The tensor as it is when the steps enqueued so far are done; later ones may overwrite it.

    ``numpy`` waits for those steps, and for nothing enqueued after them.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if tensor.is_cuda:
            self._host = tensor.to("cpu", non_blocking=True)  # to pinned memory
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = tensor.clone()

    def numpy(self) -> np.ndarray:
        if self._event is not None:
            self._event.synchronize()  # sync: the host reads the result
        return self._host.numpy()
