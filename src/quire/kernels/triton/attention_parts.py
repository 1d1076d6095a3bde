"""The parts of the attention kernels: scores, the loop over cached keys, joining partial sums.

The state of a line (one query of one head) sums up the keys it has seen: ``best`` is the highest
score, ``total`` the sum of weights relative to that, ``acc`` [D_PAD] the sum of weighted values.
This is the online softmax of Milakov and Gimelshein 2018 (arXiv:1805.02867), in base 2. Launches
nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
NOTHING = tl.constexpr(-1.0e30)  # below every real score; finite, so that differences are finite


@triton.jit
def nothing_seen(BLOCK_M: tl.constexpr, D_PAD: tl.constexpr):
    """The state of lines that have seen no key."""
    best = tl.full([BLOCK_M], NOTHING, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    return best, total, acc


@triton.jit
def _scores(
    queries, keys, places, is_key, positions, slopes,
    scale,
    SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr, WINDOW: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """[M, N] scores in base 2 of queries [M, D] and keys [D, N]; hidden ones are very small."""
    scores = tl.dot(queries, keys, input_precision=PRECISION) * scale
    if SOFT_CAP > 0.0:
        # tanh(x) = 2 sigmoid(2 x) - 1, in operations that the interpreter has, too
        scores = SOFT_CAP * (2.0 * tl.sigmoid(2.0 * scores / SOFT_CAP) - 1.0)
    if HAS_ALIBI:
        scores -= slopes[:, None] * (positions[:, None] - places[None, :])
    scores *= LOG2E
    if MASKED:
        distance = positions[:, None] - places[None, :]
        visible = (distance >= 0) & is_key[None, :]
        if WINDOW > 0:
            visible &= distance < WINDOW
        scores = tl.where(visible, scores, NOTHING)
    return scores


@triton.jit
def _load(where, is_key, is_column, MASKED: tl.constexpr, PADDED: tl.constexpr):
    """Load the keys or values of a tile; without ``MASKED`` all of its tokens must exist."""
    if MASKED:
        tile = tl.load(where, mask=is_key & is_column, other=0.0)
    elif PADDED:
        tile = tl.load(where, mask=is_column, other=0.0)
    else:
        tile = tl.load(where)
    return tile


@triton.jit
def attend_keys(
    best, total, acc, begin, end,
    queries, positions, slopes, k_cache, v_cache, table, kv_head, scale,
    NUM_KV_HEADS: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr, SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Add keys ``begin`` to ``end`` to the lines' state.

    ``begin`` is a multiple of BLOCK_N, or of BLOCK_SIZE. Without ``MASKED`` the keys must be whole
    tiles that every query sees. A cache of another dtype (fp8) is converted to that of the queries.
    """
    columns = tl.arange(0, D_PAD)
    is_column = columns < D
    token = tl.arange(0, BLOCK_N)
    for key in range(begin, end, BLOCK_N):
        places = key + token
        is_key = places < end
        if WINDOW > 0:
            # blocks behind the window may have new owners: what they hold need not be finite
            is_key &= places > tl.min(positions, 0) - WINDOW
        if BLOCK_SIZE >= BLOCK_N:
            block = tl.load(table + key // BLOCK_SIZE)
            slots = block.to(tl.int64) * BLOCK_SIZE + key % BLOCK_SIZE + token
        else:
            block = tl.load(table + places // BLOCK_SIZE, mask=is_key, other=0)
            slots = block.to(tl.int64) * BLOCK_SIZE + places % BLOCK_SIZE
        where = (slots * NUM_KV_HEADS + kv_head) * D
        keys = _load(
            k_cache + where[None, :] + columns[:, None],
            is_key[None, :], is_column[:, None], MASKED, D != D_PAD,
        )  # fmt: skip
        values = _load(
            v_cache + where[:, None] + columns[None, :],
            is_key[:, None], is_column[None, :], MASKED, D != D_PAD,
        )  # fmt: skip
        keys, values = keys.to(queries.dtype), values.to(queries.dtype)
        scores = _scores(
            queries, keys, places, is_key, positions, slopes,
            scale, SOFT_CAP, HAS_ALIBI, WINDOW, PRECISION, MASKED,
        )  # fmt: skip
        new_best = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp2(best - new_best)
        weights = tl.exp2(scores - new_best[:, None])
        if MASKED:
            # in a line that has seen no visible key yet, hidden keys would count as exp2(0)
            weights = tl.where(new_best[:, None] > NOTHING, weights, 0.0)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(values.dtype), values, acc, input_precision=PRECISION)
        best = new_best
    return best, total, acc


@triton.jit
def add_sinks(best, total, sinks, heads, is_line):
    """``total`` and the weight of each head's sink. To be called once, after the last key."""
    scores = tl.load(sinks + heads, mask=is_line, other=0.0) * LOG2E
    return total + tl.exp2(tl.minimum(scores - best, 126.0))  # beyond, the sink has all weight


@triton.jit
def cut_keys(num_keys, splits, BLOCK_N: tl.constexpr, LEAST: tl.constexpr):
    """(keys of a split, number of splits): at most ``splits``, each of LEAST tiles or more."""
    num_tiles = tl.cdiv(num_keys, BLOCK_N)
    per_split = tl.maximum(tl.cdiv(num_tiles, splits), LEAST)
    return per_split * BLOCK_N, tl.cdiv(num_tiles, per_split)


@triton.jit
def store_part(parts, part_stats, where, best, total, acc, is_line, D_PAD: tl.constexpr):
    """Store the state of lines at places ``where`` [M] of ``parts`` and ``part_stats``."""
    columns = tl.arange(0, D_PAD)
    tl.store(
        parts + where[:, None].to(tl.int64) * D_PAD + columns[None, :], acc, mask=is_line[:, None]
    )
    tl.store(part_stats + where * 2, best, mask=is_line)
    tl.store(part_stats + where * 2 + 1, total, mask=is_line)


@triton.jit
def others_follow(counters, pair, num_parts):
    """Count a part of ``pair`` as stored. False for the last one, whose program joins them all."""
    tl.debug_barrier()  # all threads have stored before the counter says so
    return tl.atomic_add(counters + pair, 1, sem="acq_rel") != num_parts - 1


@triton.jit
def join_all(
    counters, pair, parts, part_stats, first, num_parts, is_line,
    BLOCK_M: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """The joined state of lines all of whose parts are stored; parts lie BLOCK_M lines apart."""
    tl.store(counters + pair, 0)  # for the next launch
    best, total, acc = nothing_seen(BLOCK_M, D_PAD)
    return join_parts(
        best, total, acc, parts, part_stats, first, BLOCK_M, num_parts, is_line, D_PAD
    )


@triton.jit
def join_parts(
    best, total, acc, parts, part_stats, first, stride, num_parts, is_line, D_PAD: tl.constexpr
):
    """Add ``num_parts`` states, stored by `store_part` at ``first`` [M], ``first + stride``, ..."""
    columns = tl.arange(0, D_PAD)
    for part in range(num_parts):
        its = first + part * stride
        its_best = tl.load(part_stats + its * 2, mask=is_line, other=NOTHING, cache_modifier=".cg")
        its_total = tl.load(part_stats + its * 2 + 1, mask=is_line, other=0.0, cache_modifier=".cg")
        its_acc = tl.load(
            parts + its[:, None].to(tl.int64) * D_PAD + columns[None, :],
            mask=is_line[:, None],
            other=0.0,
            cache_modifier=".cg",
        )
        new_best = tl.maximum(best, its_best)
        shrink = tl.exp2(best - new_best)
        grow = tl.exp2(its_best - new_best)
        total = total * shrink + its_total * grow
        acc = acc * shrink[:, None] + its_acc * grow[:, None]
        best = new_best
    return best, total, acc
