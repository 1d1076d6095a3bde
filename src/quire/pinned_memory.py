"""Copies from the host to the device without waiting: on a GPU, from pinned memory."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def upload(values: np.ndarray, device: torch.device) -> Tensor:
    """The array on the device, without waiting for it."""
    return pinned(torch.from_numpy(values), device).to(device, non_blocking=True)


def pinned(values: Tensor, device: torch.device) -> Tensor:
    """``values`` where a copy to ``device`` need not wait."""
    return values.pin_memory() if device.type == "cuda" else values
