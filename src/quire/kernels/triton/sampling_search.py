"""Exact thresholds: the largest weight above which amounts reach what is needed.

Positive floats are ordered as their bits are, so bisecting the bits is exact. Searches the weights
that a program holds, or, where those do not suffice, a whole row, which each step reads again.
"""

from __future__ import annotations

import triton
import triton.language as tl

from quire.kernels.triton.sampling_rows import load_logits, to_units, to_weights


@triton.jit
def largest_with(weights, amounts, needed, low, high):
    """The largest threshold from ``low`` to ``high`` such that the ``amounts`` of all weights not
    below it sum to ``needed`` or more; ``low`` where there is none."""
    low_bits = low.to(tl.int32, bitcast=True)
    high_bits = tl.minimum(high, 1.0).to(tl.int32, bitcast=True)
    while low_bits < high_bits:
        middle = low_bits + (high_bits - low_bits + 1) // 2
        is_above = weights >= middle.to(tl.float32, bitcast=True)
        if tl.sum(tl.where(is_above, amounts, 0), 0) >= needed:
            low_bits = middle
        else:
            high_bits = middle - 1
    return low_bits.to(tl.float32, bitcast=True)


@triton.jit
def largest_with_in_row(
    logits, row, stride, owner, reals, seen, counts, largest, scale, low, high, floor,
    top_k, top_p, SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    PADDED: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    """(the least weight that a row keeps, the sum of weights that it keeps in each chunk).

    The search tries the weights ``low`` and ``high`` first.
    """
    if (top_k > 0) & (top_k < SIZE):
        floor = tl.maximum(
            floor,
            _search_row(
                logits, row, stride, owner, reals, seen, counts, largest, scale, low,
                high, top_k, BY_MASS=False, SIZE=SIZE, BLOCK=BLOCK, CHUNKS=CHUNKS, PADDED=PADDED,
                PENALISED=PENALISED,
            ),
        )  # fmt: skip
    masses = _kept_of_chunks(
        logits, row, stride, owner, reals, seen, counts, largest, scale, floor,
        BY_MASS=True, SIZE=SIZE, BLOCK=BLOCK, CHUNKS=CHUNKS, PADDED=PADDED, PENALISED=PENALISED,
    )  # fmt: skip
    if top_p < 1.0:
        needed = tl.ceil(top_p * tl.sum(masses, 0).to(tl.float64)).to(tl.int64)
        floor = tl.maximum(
            floor,
            _search_row(
                logits, row, stride, owner, reals, seen, counts, largest, scale, low,
                high, needed, BY_MASS=True, SIZE=SIZE, BLOCK=BLOCK, CHUNKS=CHUNKS, PADDED=PADDED,
                PENALISED=PENALISED,
            ),
        )  # fmt: skip
        masses = _kept_of_chunks(
            logits, row, stride, owner, reals, seen, counts, largest, scale, floor,
            BY_MASS=True, SIZE=SIZE, BLOCK=BLOCK, CHUNKS=CHUNKS, PADDED=PADDED,
            PENALISED=PENALISED,
        )  # fmt: skip
    return floor, masses


@triton.jit
def _search_row(
    logits, row, stride, owner, reals, seen, counts, largest, scale, low, high,
    needed, BY_MASS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    PADDED: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    low_bits = tl.zeros([], tl.int32)
    high_bits = low_bits + 0x3F800000  # 1.0
    # The bracket may have been right, only with too many weights in it to collect.
    middle = tl.minimum(low, 1.0).to(tl.int32, bitcast=True)
    end = tl.minimum(tl.maximum(high, 0.0), 1.0).to(tl.int32, bitcast=True) + 1
    while low_bits < high_bits:
        middle = tl.minimum(tl.maximum(middle, low_bits + 1), high_bits)
        kept = _kept_of_chunks(
            logits, row, stride, owner, reals, seen, counts, largest, scale,
            middle.to(tl.float32, bitcast=True), BY_MASS=BY_MASS, SIZE=SIZE, BLOCK=BLOCK,
            CHUNKS=CHUNKS, PADDED=PADDED, PENALISED=PENALISED,
        )  # fmt: skip
        if tl.sum(kept, 0) >= needed:
            low_bits = middle
        else:
            high_bits = middle - 1
        middle = tl.where(end > 0, end, low_bits + (high_bits - low_bits + 1) // 2)
        end = end * 0
    return low_bits.to(tl.float32, bitcast=True)


@triton.jit
def _kept_of_chunks(
    logits, row, stride, owner, reals, seen, counts, largest, scale, least,
    BY_MASS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr,
    PADDED: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    """Per chunk, [PADDED] int64: the sum, or number, of the weights not below ``least``. Weights of
    less than half a unit do not count, since they are never drawn."""
    index = tl.arange(0, PADDED)
    kept = tl.zeros([PADDED], tl.int64)
    for chunk in range(CHUNKS):
        place = chunk * BLOCK + tl.arange(0, BLOCK)
        values = load_logits(
            logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=PENALISED
        )
        weights = to_weights(values, largest, scale)
        amounts = to_units(weights)
        if not BY_MASS:
            amounts = (amounts > 0).to(tl.int32)
        amounts = tl.where(weights >= least, amounts, 0).to(tl.int64)
        kept = tl.where(index == chunk, tl.sum(amounts, 0), kept)
    return kept
