"""Sizes of a step are padded to one of few numbers on a CPU.

oneDNN makes code for every shape that it multiplies. That takes milliseconds, and up to a MiB that
is kept for a thousand shapes, while requests may have any length.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

_BITS = 3  # 8 numbers from one power of two to the next
_LARGEST_STEP = 64


def padded(size: int) -> int:
    """The number that stands for ``size``: at most an eighth more, and exact up to 16."""
    step = _step(size - 1)
    return -(-size // step) * step


def shortened(size: int) -> int:
    """The largest of these numbers that is not above ``size``."""
    step = _step(size)
    return size // step * step


def in_few_sizes(product: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """``product(x)`` of x [T, *], computed with zeros after it up to a padded T."""
    num_rows = len(x)
    padding = padded(num_rows) - num_rows
    return product(F.pad(x, (0, 0) * (x.dim() - 1) + (0, padding)) if padding else x)[:num_rows]


def _step(size: int) -> int:
    """How far apart the numbers above ``size`` are."""
    return min(_LARGEST_STEP, 1 << max(0, size.bit_length() - _BITS - 1))
