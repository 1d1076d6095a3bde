"""What the kernels of sampling share: a row's parameters, its logits, weights and random number.

Sums of weights are sums of integers, in units of 2^-30 of the largest weight: exact, so they do not
depend on the order of additions, nor on which kernel adds, nor on the dtype that logits are read
from. A weight below half a unit counts as zero; those of a large vocabulary sum to less than 2e-4.
Compiled without fused multiply-add (`EXACT`), so that a weight is the same in every kernel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from quire.kernels.reference import sampling_table as columns

EXACT = {"enable_fp_fusion": False}

TEMPERATURE = tl.constexpr(columns.TEMPERATURE)
TOP_P = tl.constexpr(columns.TOP_P)
MIN_P = tl.constexpr(columns.MIN_P)
REPETITION = tl.constexpr(columns.REPETITION)
FREQUENCY = tl.constexpr(columns.FREQUENCY)
PRESENCE = tl.constexpr(columns.PRESENCE)
SEED = tl.constexpr(columns.SEED)
TOP_K = tl.constexpr(columns.TOP_K)
NUM_PROMPT = tl.constexpr(columns.NUM_PROMPT)
LOGPROBS = tl.constexpr(columns.LOGPROBS)
MIN_TOKENS = tl.constexpr(columns.MIN_TOKENS)
NO_LOGPROBS = tl.constexpr(columns.NO_LOGPROBS)
PROCESSED_LOGPROBS = tl.constexpr(columns.PROCESSED_LOGPROBS)
_NUM_COLUMNS = tl.constexpr(columns.NUM_COLUMNS)

IN_PROMPT = tl.constexpr(1 << 30)  # in the count of a token's occurrences in the output
UNITS = tl.constexpr(float(1 << 30))
_LOG2_E = tl.constexpr(1.4426950408889634)
_LEAST = tl.constexpr(-3.4028234663852886e38)
_LEAST_TEMPERATURE = tl.constexpr(1e-30)


@triton.jit
def read_double(reals, owner, COLUMN: tl.constexpr):
    return tl.load(reals + owner * _NUM_COLUMNS + COLUMN)


@triton.jit
def read_real(reals, owner, COLUMN: tl.constexpr):
    return read_double(reals, owner, COLUMN).to(tl.float32)


@triton.jit
def read_integer(integers, owner, COLUMN: tl.constexpr):
    return tl.load(integers + owner * _NUM_COLUMNS + COLUMN)


@triton.jit
def is_penalised(reals, owner):
    repetition = read_real(reals, owner, REPETITION)
    frequency = read_real(reals, owner, FREQUENCY)
    return (repetition != 1.0) | (frequency != 0.0) | (read_real(reals, owner, PRESENCE) != 0.0)


@triton.jit
def is_filtered(reals, integers, owner, SIZE: tl.constexpr):
    top_k = read_integer(integers, owner, TOP_K)
    has_top_k = (top_k > 0) & (top_k < SIZE)
    top_p = read_real(reals, owner, TOP_P)
    return has_top_k | (top_p < 1.0) | (read_real(reals, owner, MIN_P) > 0.0)


@triton.jit
def load_logits(
    logits, row, stride, place, owner, reals, seen, counts, SIZE: tl.constexpr,
    PENALISED: tl.constexpr,
):  # fmt: skip
    """A row's logits at ``place`` as float32; -inf past the end, and in place of NaN, so that a row
    of NaN still has a first best token."""
    inside = place < SIZE
    values = tl.load(
        logits + row.to(tl.int64) * stride + place, mask=inside, other=float("-inf")
    ).to(tl.float32)
    values = tl.where(values == values, values, float("-inf"))
    if PENALISED:  # noqa: SIM102, known when it is compiled
        if is_penalised(reals, owner):
            words = tl.load(seen + row * ((SIZE + 31) // 32) + place // 32, mask=inside, other=0)
            is_seen = ((words >> (place % 32)) & 1) != 0
            count = tl.load(
                counts + row.to(tl.int64) * SIZE + place, mask=is_seen & inside, other=0
            )
            count = (count & (IN_PROMPT - 1)).to(tl.float32)
            repetition = read_real(reals, owner, REPETITION)
            values_now = values * tl.where(values > 0, 1.0 / repetition, repetition)
            values_now = values_now - read_real(reals, owner, FREQUENCY) * count
            values_now -= tl.where(count > 0, read_real(reals, owner, PRESENCE), 0.0)
            values = tl.where(is_seen, values_now, values)
    return values


@triton.jit
def scale_of(temperature):
    return _LOG2_E / tl.maximum(temperature, _LEAST_TEMPERATURE)


@triton.jit
def to_finite(largest):
    """``largest``, made finite where every token is forbidden, so that all weights are zero."""
    return tl.maximum(largest, _LEAST)


@triton.jit
def to_weights(values, largest, scale):
    """Weights, at most 1; ``largest`` must be finite and no smaller than any value."""
    return tl.exp2((values - largest) * scale)


@triton.jit
def to_units(weights):
    return (weights * UNITS + 0.5).to(tl.int32)


@triton.jit
def random_share(seed, position, total):
    """An integer in [0, total): ``total`` times the random number of a seed and a position.

    SplitMix64, as in `kernels.reference.sampling_random`.
    """
    state = _mix(seed.to(tl.uint64) + 0x9E3779B97F4A7C15)
    state += (position + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    return tl.umulhi(_mix(state), total.to(tl.uint64)).to(tl.int64)


@triton.jit
def _mix(state):
    state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    state = (state ^ (state >> 27)) * 0x94D049BB133111EB
    return state ^ (state >> 31)


@triton.jit
def find_share(masses, target, PADDED: tl.constexpr):
    """(index, rest): the first of ``masses`` [PADDED] whose cumulative sum exceeds ``target``, and
    the target less the masses before it."""
    ends = tl.cumsum(masses, 0)
    index = tl.arange(0, PADDED)
    found = tl.min(tl.where(ends > target, index, PADDED - 1), 0)
    return found, target - tl.max(tl.where(ends <= target, ends, 0), 0)
