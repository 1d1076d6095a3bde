"""Host arrays to the device, many in one copy. Knows nothing about what they mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def upload(arrays: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    """The one-dimensional integer ``arrays`` as int64 tensors: views of a single uploaded buffer.

    int64, since torch indexes with it, and a flat index into the token ids can exceed 32 bits.
    """
    packed = torch.from_numpy(np.concatenate(arrays, dtype=np.int64))
    if device.type == "cuda":
        packed = packed.pin_memory()  # else the copy would wait for the device
    return packed.to(device, non_blocking=True).split([len(array) for array in arrays])
