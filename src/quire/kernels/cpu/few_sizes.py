"""Sizes of a step are padded to one of few numbers on a CPU.

oneDNN makes code for every shape that it multiplies. That takes milliseconds, and up to a MiB that
is kept for a thousand shapes, while requests may have any length.
"""

from __future__ import annotations

_BITS = 3  # 8 numbers from one power of two to the next


def padded(size: int) -> int:
    """The number that stands for ``size``: at most an eighth more, and exact up to 16."""
    step = 1 << max(0, (size - 1).bit_length() - _BITS - 1)
    return -(-size // step) * step
