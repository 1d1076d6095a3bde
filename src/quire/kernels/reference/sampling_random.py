"""Random numbers without state: a pure function of a row's seed and of a token's position.

So a request draws the same numbers whatever runs beside it, whichever row it has, and after a
preemption. Knows nothing about rows or logits.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


# SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014): a counter
# that advances by the golden ratio, and a function that mixes its bits. int64 wraps as uint64 does.
_STRIDE = _signed(0x9E3779B97F4A7C15)
_MULTIPLIERS = (_signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB))
_MANTISSA_BITS = 53


def uniform(seeds: Tensor, positions: Tensor) -> Tensor:
    """Numbers in [0, 1), float64 [N], for ``seeds`` and ``positions``, both int64 [N]."""
    # Mixing the seed first keeps neighbouring seeds from sharing a shifted sequence.
    state = _mix(seeds + _STRIDE) + (positions + 1) * _STRIDE
    bits = _shift_right(_mix(state), 64 - _MANTISSA_BITS)
    return bits.to(torch.float64) * 2.0**-_MANTISSA_BITS


def wrap_seed(seed: int) -> int:
    """Any integer seed as the int64 with the same lowest 64 bits."""
    return _signed(seed % 2**64)


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _shift_right(state, 30)) * _MULTIPLIERS[0]
    state = (state ^ _shift_right(state, 27)) * _MULTIPLIERS[1]
    return state ^ _shift_right(state, 31)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """A shift that brings in zeros; int64's own repeats the sign."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
