"""Paged causal attention in one launch, for rows with any mix of query lengths.

A *tile* is up to BLOCK_Q consecutive queries of one row; with the G query heads that share a KV
head it makes one matrix operand of BLOCK_Q * G lines, so keys and values are read once for all of
them. Tiles are found from ``query_start`` on the device: the grid depends on shapes alone, which
lets a CUDA graph replay it for other lengths.

With few tiles the keys are split among up to SPLITS programs as well, as many as have a block of
keys each. Each writes its partial sum; the one that finishes last (a counter tells) joins them, so
there is no second launch.

Softmax is the online form of Milakov and Gimelshein 2018 (arXiv:1805.02867), in base 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

_LOG2E = tl.constexpr(1.4426950408889634)
_LEAST_LINES = 16  # what a matrix unit takes
_NOTHING = tl.constexpr(-1.0e30)  # a score below every real one; finite, so differences are too


@triton.jit
def _find_row(query_start, tile, num_rows, BLOCK_Q: tl.constexpr):
    """The row of a tile: row r's tiles begin at query_start[r] // BLOCK_Q + r."""
    low = 0
    high = num_rows
    while low < high:
        middle = (low + high) // 2
        first = tl.load(query_start + middle) // BLOCK_Q + middle
        if first <= tile:
            low = middle + 1
        else:
            high = middle
    return low - 1


@triton.jit
def _scores(
    queries, keys, places, positions, slopes,
    scale,
    SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr, WINDOW: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """[M, N] scores in base 2 of queries [M, D] and keys [D, N]; hidden ones are very small."""
    scores = tl.dot(queries, keys, input_precision=PRECISION) * scale
    if SOFT_CAP > 0.0:
        # tanh(x) = 2 sigmoid(2 x) - 1, which the interpreter knows too
        scores = SOFT_CAP * (2.0 * tl.sigmoid(2.0 * scores / SOFT_CAP) - 1.0)
    if HAS_ALIBI:
        scores -= slopes[:, None] * (positions[:, None] - places[None, :])
    scores *= _LOG2E
    if MASKED:
        distance = positions[:, None] - places[None, :]
        visible = distance >= 0
        if WINDOW > 0:
            visible &= distance < WINDOW
        scores = tl.where(visible, scores, _NOTHING)
    return scores


@triton.jit
def _attend_keys(
    best, total, acc, begin, end,
    queries, positions, slopes, k_cache, v_cache, table, kv_head, scale,
    NUM_KV_HEADS: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr, SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    """Take keys ``begin`` to ``end`` in; not ``MASKED``: whole tiles that every query sees."""
    columns = tl.arange(0, D_PAD)
    is_column = columns < D
    token = tl.arange(0, BLOCK_N)
    for key in range(begin, end, BLOCK_N):
        places = key + token
        is_key = places < end
        if BLOCK_SIZE >= BLOCK_N:
            block = tl.load(table + key // BLOCK_SIZE)
            slots = block.to(tl.int64) * BLOCK_SIZE + key % BLOCK_SIZE + token
        else:
            block = tl.load(table + places // BLOCK_SIZE, mask=is_key, other=0)
            slots = block.to(tl.int64) * BLOCK_SIZE + places % BLOCK_SIZE
        where = (slots * NUM_KV_HEADS + kv_head) * D
        if MASKED:
            key_mask = is_key[None, :] & is_column[:, None]
            value_mask = is_key[:, None] & is_column[None, :]
            keys = tl.load(k_cache + where[None, :] + columns[:, None], mask=key_mask, other=0.0)
            values = tl.load(
                v_cache + where[:, None] + columns[None, :], mask=value_mask, other=0.0
            )
        elif D == D_PAD:
            keys = tl.load(k_cache + where[None, :] + columns[:, None])
            values = tl.load(v_cache + where[:, None] + columns[None, :])
        else:
            keys = tl.load(
                k_cache + where[None, :] + columns[:, None], mask=is_column[:, None], other=0.0
            )
            values = tl.load(
                v_cache + where[:, None] + columns[None, :], mask=is_column[None, :], other=0.0
            )
        scores = _scores(
            queries, keys, places, positions, slopes,
            scale, SOFT_CAP, HAS_ALIBI, WINDOW, PRECISION, MASKED,
        )  # fmt: skip
        new_best = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp2(best - new_best)
        weights = tl.exp2(scores - new_best[:, None])
        if MASKED:
            # a line that has seen no visible key yet would count hidden ones as exp2(0)
            weights = tl.where(new_best[:, None] > _NOTHING, weights, 0.0)
        total = total * shrink + tl.sum(weights, 1)
        acc = acc * shrink[:, None]
        acc = tl.dot(weights.to(values.dtype), values, acc, input_precision=PRECISION)
        best = new_best
    return best, total, acc


@triton.jit
def _store_rows(
    out, values, lines, heads, is_line, num_heads, D: tl.constexpr, D_PAD: tl.constexpr
):
    columns = tl.arange(0, D_PAD)
    where = out + (lines * num_heads + heads)[:, None].to(tl.int64) * D + columns[None, :]
    tl.store(where, values, mask=is_line[:, None] & (columns < D)[None, :])


@triton.jit
def _find_tile(
    query_start, seq_lens, tile, num_rows, BLOCK_Q: tl.constexpr, IS_DECODE: tl.constexpr
):
    """(row, its first query in the tile, how many queries, the first one's position).

    None or fewer queries: the tile is one of those that the grid has too many.
    """
    if IS_DECODE:
        return tile, tile, 1, tl.load(seq_lens + tile) - 1
    row = _find_row(query_start, tile, num_rows, BLOCK_Q)
    start = tl.load(query_start + row)
    query_len = tl.load(query_start + row + 1) - start
    offset = (tile - start // BLOCK_Q - row) * BLOCK_Q
    num_queries = tl.minimum(BLOCK_Q, query_len - offset)
    return row, start + offset, num_queries, tl.load(seq_lens + row) - query_len + offset


@triton.jit
def _join_splits(
    parts, part_stats, first, num_splits, line, is_line,
    BLOCK_M: tl.constexpr, D_PAD: tl.constexpr,
):  # fmt: skip
    """The sums of a tile whose partial sums begin at part ``first``."""
    columns = tl.arange(0, D_PAD)
    best = tl.full([BLOCK_M], _NOTHING, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    for other in range(num_splits):
        its = (first + other) * BLOCK_M + line
        its_best = tl.load(part_stats + its * 2, mask=is_line, other=_NOTHING, cache_modifier=".cg")
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
    return total, acc


@triton.jit(
    do_not_specialize=["num_rows", "table_stride"],
    # slices of them begin anywhere; another alignment must not compile another kernel
    do_not_specialize_on_alignment=["block_table", "query_start", "seq_lens"],
)
def _attention_kernel(
    out, q, k_cache, v_cache, block_table, query_start, seq_lens, slopes,
    parts, part_stats, counters,
    num_rows, table_stride, q_stride, scale,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    SPLITS: tl.constexpr, WINDOW: tl.constexpr, SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    IS_DECODE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, first_query, num_queries, first_position = _find_tile(
        query_start, seq_lens, tile, num_rows, BLOCK_Q, IS_DECODE
    )
    if num_queries <= 0:
        return

    line = tl.arange(0, BLOCK_M)
    query = line // GROUP
    heads = kv_head * GROUP + line % GROUP
    is_line = query < num_queries
    lines = first_query + query
    positions = first_position + query
    columns = tl.arange(0, D_PAD)
    is_column = columns < D
    queries = tl.load(
        q + lines[:, None].to(tl.int64) * q_stride + heads[:, None] * D + columns[None, :],
        mask=is_line[:, None] & is_column[None, :],
        other=0.0,
    )
    head_slopes = tl.load(slopes + heads, mask=is_line, other=0.0) if HAS_ALIBI else 0.0

    end = first_position + num_queries  # keys that the last query of the tile sees
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(first_position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    num_splits = 1
    if SPLITS > 1:
        num_blocks = tl.cdiv(end - begin, BLOCK_N)
        per_split = tl.cdiv(num_blocks, SPLITS)
        num_splits = tl.cdiv(num_blocks, per_split)
        if split >= num_splits:
            return
        begin += split * per_split * BLOCK_N
        end = tl.minimum(end, begin + per_split * BLOCK_N)

    best = tl.full([BLOCK_M], _NOTHING, tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    acc = tl.zeros([BLOCK_M, D_PAD], tl.float32)
    table = block_table + row.to(tl.int64) * table_stride
    first_masked = begin
    if WINDOW == 0:
        # up to the first query's own position every query of the tile sees every key
        whole = tl.minimum(first_position + 1, end) - begin
        first_masked = begin + tl.maximum(whole, 0) // BLOCK_N * BLOCK_N
        best, total, acc = _attend_keys(
            best, total, acc, begin, first_masked,
            queries, positions, head_slopes, k_cache, v_cache, table, kv_head, scale,
            NUM_KV_HEADS, D, D_PAD, BLOCK_SIZE, BLOCK_N, WINDOW, SOFT_CAP, HAS_ALIBI,
            PRECISION, False,
        )  # fmt: skip
    best, total, acc = _attend_keys(
        best, total, acc, first_masked, end,
        queries, positions, head_slopes, k_cache, v_cache, table, kv_head, scale,
        NUM_KV_HEADS, D, D_PAD, BLOCK_SIZE, BLOCK_N, WINDOW, SOFT_CAP, HAS_ALIBI,
        PRECISION, True,
    )  # fmt: skip

    num_heads: tl.constexpr = NUM_KV_HEADS * GROUP
    if num_splits == 1:
        result = acc / tl.maximum(total, 1.0e-30)[:, None]
        _store_rows(
            out, result.to(out.dtype.element_ty), lines, heads, is_line, num_heads, D, D_PAD
        )
        return

    # Partial sums: [tile, KV head, split, BLOCK_M, D_PAD], and their maximum and total.
    pair = tile * NUM_KV_HEADS + kv_head
    own = (pair * SPLITS + split) * BLOCK_M + line
    tl.store(
        parts + own[:, None].to(tl.int64) * D_PAD + columns[None, :], acc, mask=is_line[:, None]
    )
    tl.store(part_stats + own * 2, best, mask=is_line)
    tl.store(part_stats + own * 2 + 1, total, mask=is_line)
    tl.debug_barrier()  # all threads have stored before the counter says so
    arrived = tl.atomic_add(counters + pair, 1, sem="acq_rel")
    if arrived != num_splits - 1:
        return
    tl.store(counters + pair, 0)  # for the next launch
    total, acc = _join_splits(
        parts, part_stats, pair * SPLITS, num_splits, line, is_line, BLOCK_M, D_PAD
    )
    result = acc / tl.maximum(total, 1.0e-30)[:, None]
    _store_rows(out, result.to(out.dtype.element_ty), lines, heads, is_line, num_heads, D, D_PAD)


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """What is compiled into the kernel."""

    num_kv_heads: int
    group: int  # query heads that share a KV head
    head_dim: int
    scale: float
    window: int | None = None
    soft_cap: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Room for partial sums; one serves all layers, which run one after another."""

    parts: Tensor  # float32
    stats: Tensor  # float32
    counters: Tensor  # int32, zeros between launches

    @classmethod
    def of(cls, max_programs: int, block_m: int, head_dim: int, device: torch.device) -> Workspace:
        """For launches of at most ``max_programs`` programs (tiles * KV heads * splits)."""
        lines = max_programs * block_m
        return cls(
            parts=torch.empty(lines * _padded(head_dim), dtype=torch.float32, device=device),
            stats=torch.empty(lines * 2, dtype=torch.float32, device=device),
            counters=torch.zeros(max_programs, dtype=torch.int32, device=device),
        )


def paged_attention(
    out: Tensor,
    q: Tensor,
    kv_cache: Tensor,
    block_table: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    shape: AttentionShape,
    *,
    is_decode: bool,
    splits: int = 1,
    workspace: Workspace | None = None,
    alibi_slopes: Tensor | None = None,
) -> None:
    """`reference.attention.paged_attention` into ``out`` [T, H, D].

    ``q`` [T, H, D] may be strided in T. ``is_decode``: every row has one query. With ``splits > 1``
    a workspace is needed.
    """
    assert kv_cache.is_contiguous()
    num_rows, num_tokens, block_size = len(seq_lens), len(q), kv_cache.shape[2]
    block_q, block_m, block_n, num_warps, num_stages = _tile(shape, q.dtype, is_decode)
    num_tiles = num_rows if is_decode else num_tokens // block_q + num_rows
    parts, stats, counters = (
        (q, q, q)  # not touched without splits
        if workspace is None
        else (workspace.parts, workspace.stats, workspace.counters)
    )
    _attention_kernel[(num_tiles, shape.num_kv_heads, splits)](
        out, q, kv_cache[0], kv_cache[1], block_table, query_start, seq_lens,
        q if alibi_slopes is None else alibi_slopes,
        parts, stats, counters,
        num_rows, block_table.stride(0), q.stride(0), shape.scale,
        NUM_KV_HEADS=shape.num_kv_heads, GROUP=shape.group,
        D=shape.head_dim, D_PAD=_padded(shape.head_dim), BLOCK_SIZE=block_size,
        BLOCK_Q=block_q, BLOCK_M=block_m, BLOCK_N=block_n,
        SPLITS=splits, WINDOW=shape.window or 0, SOFT_CAP=shape.soft_cap or 0.0,
        HAS_ALIBI=alibi_slopes is not None, IS_DECODE=is_decode,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=num_warps, num_stages=num_stages,
    )  # fmt: skip


def decode_lines(shape: AttentionShape) -> int:
    """BLOCK_M of a decode launch, for `Workspace.of`."""
    return max(_LEAST_LINES, triton.next_power_of_2(shape.group))


def _tile(
    shape: AttentionShape, dtype: torch.dtype, is_decode: bool
) -> tuple[int, int, int, int, int]:
    """(BLOCK_Q, BLOCK_M, BLOCK_N, warps, stages), measured on an H200 (benchmarks/RESULTS.md)."""
    wide = dtype == torch.float32 or shape.head_dim > 128
    block_n = 32 if wide else 64
    if is_decode:
        return 1, decode_lines(shape), block_n, 4, 2
    block_q = max(1, 64 // triton.next_power_of_2(shape.group))
    block_m = max(_LEAST_LINES, triton.next_power_of_2(block_q * shape.group))
    return block_q, block_m, block_n, 4, 2 if wide else 3


def max_splits(num_programs: int, num_processors: int) -> int:
    """How many ways to split the keys so that each processor has a program; a power of two."""
    return 1 << max(0, (num_processors // num_programs).bit_length() - 1)


def _padded(head_dim: int) -> int:
    return max(16, triton.next_power_of_2(head_dim))
