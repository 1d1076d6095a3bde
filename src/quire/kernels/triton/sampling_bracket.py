"""Estimates from a sample a bracket: two weights between which the least one that a row keeps lies.

The sample is runs of neighbouring tokens at even distances. The result need not be right: a
bracket that is too narrow, too wide or wrong costs time and changes no token.
"""

from __future__ import annotations

import triton
import triton.language as tl

from quire.kernels.triton.sampling_rows import (
    MIN_P,
    TOP_K,
    TOP_P,
    load_logits,
    read_integer,
    read_real,
    to_weights,
)

_RUN = tl.constexpr(16)  # tokens side by side: at least one sector (32 bytes) of memory
_ROUNDS = tl.constexpr(13)
_STEPS = tl.constexpr(8192.0)  # that so many rounds of bisection tell apart
_LEAST_POWER = tl.constexpr(-31.0)  # weights below 2 to this power are never drawn
_DEVIATIONS = tl.constexpr(4.0)
_SLACK = tl.constexpr(0.003)  # relative error of sums that bisection leaves, at most
_ALL = tl.constexpr(2.0)  # above every weight
_NONE = tl.constexpr(-1.0)  # below every weight


@triton.jit
def bracket_of(
    logits, row, stride, owner, reals, integers, seen, counts, largest, scale, total,
    SIZE: tl.constexpr, SAMPLE: tl.constexpr, CAPACITY: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    """The bracket (low, high) of a row; ``total`` is the sum of its weights."""
    top_k = read_integer(integers, owner, TOP_K)
    top_p = read_real(reals, owner, TOP_P)
    min_p = read_real(reals, owner, MIN_P)
    low = min_p * 0.0
    high = low + _ALL
    has_top_k = (top_k > 0) & (top_k < SIZE)
    if (not has_top_k) & (top_p >= 1.0):
        low = high
        high = high * 0.0 + _NONE  # the threshold is known: everything lies above the bracket
    else:
        if SIZE > CAPACITY:
            share = SAMPLE / SIZE
            index = tl.arange(0, SAMPLE)
            place = index // _RUN * (SIZE * _RUN // SAMPLE) + index % _RUN
            values = load_logits(
                logits, row, stride, place, owner, reals, seen, counts,
                SIZE=SIZE, PENALISED=PENALISED,
            )  # fmt: skip
            weights = to_weights(values, largest, scale)
            # Rows whose weights hardly differ need smaller steps.
            least = tl.log2(tl.min(tl.where(weights > 0.0, weights, 1.0), 0))
            least = tl.maximum(least, _LEAST_POWER)
            # What is collected must fit; with top_k, it must almost surely be enough.
            rank = tl.zeros([], tl.float32) + CAPACITY * share * 0.375
            if has_top_k:
                rank = top_k.to(tl.float32) * share
                rank = rank + 5.0 * tl.sqrt(rank) + 8.0
            low = _weight_of_rank(weights, rank, least)
            if not has_top_k:
                low, high = _around_share(weights, least, low, top_p, min_p, total, share)
    return low, high


@triton.jit
def _weight_of_rank(weights, rank, least):
    """A weight that at least ``rank`` of the sample's reach; 0 where fewer are above zero. The
    smallest above zero is 2 to the power ``least``."""
    low = rank * 0.0 + least
    high = rank * 0.0
    for _ in range(_ROUNDS):
        middle = (low + high) * 0.5
        is_enough = tl.sum((weights >= tl.exp2(middle)).to(tl.int32), 0) >= rank
        low = tl.where(is_enough, middle, low)
        high = tl.where(is_enough, high, middle)
    return tl.where(low > least, tl.exp2(low), 0.0)


@triton.jit
def _around_share(weights, least, low_rank, top_p, min_p, total, share):
    """(low, high) around the weight above which ``top_p`` of the total lies.

    How much of the total lies below a weight can be told from the sample only where weights are
    many. That is not so above ``low_rank``, but from there on all weights can be collected.
    """
    left = tl.where(weights >= min_p, weights, 0.0)
    of_sample = tl.sum(weights, 0)
    dropped = (of_sample - tl.sum(left, 0)) / share
    below = (1.0 - top_p) * tl.maximum(total - dropped, 0.0) * share  # scaled to the sample
    above = tl.minimum(_weight_below_which(left, below, least), low_rank)
    small = tl.where(left < above, left, 0.0)
    squares = tl.sum(small * small, 0)
    # The error of the sample's total, which is known, predicts part of that of its small weights.
    slope = squares / tl.maximum(tl.sum(weights * weights, 0), 1e-30)
    guess = below - slope * (total * share - of_sample)
    error = _DEVIATIONS * tl.sqrt(squares * (1.0 - slope)) + _SLACK * below
    low = tl.minimum(_weight_below_which(left, guess - error, least), low_rank)
    high = _weight_below_which(left, guess + error, least) * tl.exp2(-least / _STEPS)
    return low, tl.where((low < low_rank) & (high < low_rank), high, _ALL)


@triton.jit
def _weight_below_which(weights, amount, least):
    """The largest weight such that the sample's smaller ones sum to no more than ``amount``."""
    low = amount * 0.0 + least
    high = amount * 0.0
    for _ in range(_ROUNDS):
        middle = (low + high) * 0.5
        is_little = tl.sum(tl.where(weights < tl.exp2(middle), weights, 0.0), 0) <= amount
        low = tl.where(is_little, middle, low)
        high = tl.where(is_little, high, middle)
    return tl.where(low > least, tl.exp2(low), 0.0)
