"""Paged causal attention in one launch, for rows with any mix of query lengths.

A *tile* is up to BLOCK_Q consecutive queries of one row; with the G query heads that share a KV
head it makes one matrix operand of BLOCK_Q * G lines, so keys and values are read once for all of
them. Tiles are found from ``query_start`` on the device: the grid depends on shapes alone, which
lets a CUDA graph replay it for other lengths.

With few tiles the keys are split among up to SPLITS programs as well, as many as have some tiles of
keys each. Each writes its partial sum; the one that finishes last (a counter tells) joins them, so
there is no second launch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.attention_parts import (
    add_sinks,
    attend_keys,
    cut_keys,
    join_all,
    join_parts,
    nothing_seen,
    others_follow,
    store_part,
)
from quire.kernels.triton.launch import await_inputs, dependent_launch, first_fitting

_MOST_SPLITS = 32  # more take longer to join than they save
_LEAST_LINES = 16  # of a matrix operand
STAGES = 5  # two tiles are loaded ahead: each takes two stages, its block ids and then itself
_LESS_STAGES = 3  # one tile is loaded ahead
# The fastest first; a device with less memory than an H200 takes the first that fits.
_LINES = (64, 32, 16)
_KEYS = ((64, STAGES), (64, _LESS_STAGES), (32, 2), (16, 2))  # (keys of a tile, stages)
_WIDE_KEYS = _KEYS[2:]


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
def find_tile(
    query_start, seq_lens, tile, num_rows,
    BLOCK_Q: tl.constexpr, IS_DECODE: tl.constexpr, IS_MIXED: tl.constexpr,
):  # fmt: skip
    """(row, the tile's first query, number of queries, position of the first one).

    The number is 0 or negative for a tile that the grid has to spare, and 0 for a row that the
    other launch of a mixed step takes.
    """
    if IS_DECODE:
        first_query = tile
        num_queries = 1
        if IS_MIXED:
            first_query = tl.load(query_start + tile)
            query_len = tl.load(query_start + tile + 1) - first_query
            num_queries = tl.where(query_len == 1, 1, 0)
        return tile, first_query, num_queries, tl.load(seq_lens + tile) - 1
    row = _find_row(query_start, tile, num_rows, BLOCK_Q)
    start = tl.load(query_start + row)
    query_len = tl.load(query_start + row + 1) - start
    offset = (tile - start // BLOCK_Q - row) * BLOCK_Q
    num_queries = tl.minimum(BLOCK_Q, query_len - offset)
    if IS_MIXED:
        num_queries = tl.where(query_len == 1, 0, num_queries)
    return row, start + offset, num_queries, tl.load(seq_lens + row) - query_len + offset


@triton.jit
def _read_tile(query_start, seq_lens, tiles, tile, BLOCK_Q: tl.constexpr):
    """The result of `find_tile` for a tile that `prompt_tiles` has found already."""
    found = tl.load(tiles + 2 * tile)
    row = tl.maximum(found, 0)
    start = tl.load(query_start + row)
    query_len = tl.load(query_start + row + 1) - start
    offset = tl.load(tiles + 2 * tile + 1)
    num_queries = tl.where(found < 0, 0, tl.minimum(BLOCK_Q, query_len - offset))
    return row, start + offset, num_queries, tl.load(seq_lens + row) - query_len + offset


@triton.jit
def _store_rows(
    out, best, total, acc, sinks, lines, heads, is_line,
    NUM_HEADS: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    if HAS_SINKS:
        total = add_sinks(best, total, sinks, heads, is_line)
    result = acc * (1.0 / tl.maximum(total, 1.0e-30))[:, None]
    columns = tl.arange(0, D_PAD)
    where = out + (lines * NUM_HEADS + heads)[:, None].to(tl.int64) * D + columns[None, :]
    tl.store(where, result.to(out.dtype.element_ty), mask=is_line[:, None] & (columns < D)[None, :])


@triton.jit(
    do_not_specialize=["num_rows", "table_stride", "splits", "prefix_splits"],
    # these may be slices that begin anywhere; alignment must not cause another compile
    do_not_specialize_on_alignment=[
        *("block_table", "query_start", "seq_lens", "order", "tiles", "shared_blocks"),
    ],
)
def _attention_kernel(
    out, q, k_cache, v_cache, block_table, query_start, seq_lens, order, tiles, slopes, sinks,
    parts, part_stats, counters, prefix_parts, prefix_stats, shared_blocks,
    num_rows, table_stride, q_stride, splits, prefix_splits, scale,
    NUM_KV_HEADS: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    BLOCK_SIZE: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_SPLITS: tl.constexpr, LEAST: tl.constexpr,
    HAS_PREFIX: tl.constexpr, PREFIX_BLOCK_N: tl.constexpr,
    HAS_ORDER: tl.constexpr, HAS_TILES: tl.constexpr,
    WINDOW: tl.constexpr, SOFT_CAP: tl.constexpr, HAS_ALIBI: tl.constexpr,
    HAS_SINKS: tl.constexpr, IS_DECODE: tl.constexpr, IS_MIXED: tl.constexpr,
    HEADS_FIRST: tl.constexpr, WHOLE_FIRST: tl.constexpr,
    PRECISION: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    # Long, but one thing: which tile, its queries, the keys they see, where the sums go. Functions
    # of parts of it would hand twenty names to each other.
    await_inputs(DEPENDENT)
    if HEADS_FIRST:
        kv_head, tile, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    else:
        tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if HAS_ORDER:
        tile = tl.load(order + tile)
    if HAS_TILES:
        row, first_query, num_queries, first_position = _read_tile(
            query_start, seq_lens, tiles, tile, BLOCK_Q
        )
    else:
        row, first_query, num_queries, first_position = find_tile(
            query_start, seq_lens, tile, num_rows, BLOCK_Q, IS_DECODE, IS_MIXED
        )
    if num_queries <= 0:
        return

    num_heads: tl.constexpr = NUM_KV_HEADS * GROUP
    line = tl.arange(0, BLOCK_M)
    query = line // GROUP
    heads = kv_head * GROUP + line % GROUP
    is_line = query < num_queries
    lines = first_query + query
    positions = first_position + query
    columns = tl.arange(0, D_PAD)
    queries = tl.load(
        q + lines[:, None].to(tl.int64) * q_stride + heads[:, None] * D + columns[None, :],
        mask=is_line[:, None] & (columns < D)[None, :],
        other=0.0,
    )
    head_slopes = tl.load(slopes + heads, mask=is_line, other=0.0) if HAS_ALIBI else 0.0

    end = first_position + num_queries  # number of keys that the tile's last query sees
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(first_position - WINDOW + 1, 0) // BLOCK_N * BLOCK_N
    if HAS_PREFIX:
        begin = tl.load(shared_blocks + row) * BLOCK_SIZE
    best, total, acc = nothing_seen(BLOCK_M, D_PAD)
    if HAS_PREFIX:
        _, num_parts = cut_keys(begin, prefix_splits, PREFIX_BLOCK_N, 1)
        best, total, acc = join_parts(
            best, total, acc, prefix_parts, prefix_stats, row * num_heads + heads,
            num_rows * num_heads, tl.where(split == 0, num_parts, 0), is_line, D_PAD,
        )  # fmt: skip
    num_splits = 1
    if HAS_SPLITS:
        split_keys, num_splits = cut_keys(end - begin, splits, BLOCK_N, LEAST)
        if split >= tl.maximum(num_splits, 1):
            return
        begin += split * split_keys
        end = tl.minimum(end, begin + split_keys)

    table = block_table + row.to(tl.int64) * table_stride
    first_masked = begin
    if WHOLE_FIRST:
        # up to the first query's own position every query of the tile sees every key
        whole = tl.minimum(first_position + 1, end) - begin
        first_masked = begin + tl.maximum(whole, 0) // BLOCK_N * BLOCK_N
        best, total, acc = attend_keys(
            best, total, acc, begin, first_masked,
            queries, positions, head_slopes, k_cache, v_cache, table, kv_head, scale,
            NUM_KV_HEADS, D, D_PAD, BLOCK_SIZE, BLOCK_N, WINDOW, SOFT_CAP, HAS_ALIBI,
            PRECISION, False,
        )  # fmt: skip
    best, total, acc = attend_keys(
        best, total, acc, first_masked, end,
        queries, positions, head_slopes, k_cache, v_cache, table, kv_head, scale,
        NUM_KV_HEADS, D, D_PAD, BLOCK_SIZE, BLOCK_N, WINDOW, SOFT_CAP, HAS_ALIBI,
        PRECISION, True,
    )  # fmt: skip

    if num_splits <= 1:
        _store_rows(
            out, best, total, acc, sinks, lines, heads, is_line, num_heads, D, D_PAD, HAS_SINKS,
        )  # fmt: skip
        return

    # Partial sums: [tile, KV head, split, BLOCK_M].
    pair = tile * NUM_KV_HEADS + kv_head
    first = pair * splits * BLOCK_M + line
    store_part(parts, part_stats, first + split * BLOCK_M, best, total, acc, is_line, D_PAD)
    if others_follow(counters, pair, num_splits):
        return
    best, total, acc = join_all(
        counters, pair, parts, part_stats, first, num_splits, is_line, BLOCK_M, D_PAD
    )
    _store_rows(
        out, best, total, acc, sinks, lines, heads, is_line, num_heads, D, D_PAD, HAS_SINKS,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class AttentionShape:
    """The constants of a layer that are compiled into the kernel."""

    num_kv_heads: int
    group: int  # query heads that share a KV head
    head_dim: int
    scale: float
    window: int | None = None
    soft_cap: float | None = None

    @property
    def padded_dim(self) -> int:
        return max(16, triton.next_power_of_2(self.head_dim))


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """How the work is cut into programs; `best_tile` chooses the fastest way."""

    block_q: int  # queries of a tile
    block_m: int  # its lines: queries times the heads of a group, padded
    block_n: int  # keys that are read at once
    num_warps: int
    num_stages: int
    programs: int = 4  # per multiprocessor, to split keys for: while one waits, others read
    least: int = 4  # times block_n: the fewest keys of a split
    heads_first: bool = False  # programs of one row's KV heads run side by side
    whole_first: bool = True  # keys that every query sees have a loop of their own, without masks

    def grid(self, num_tiles: int, num_kv_heads: int, splits: int) -> tuple[int, int, int]:
        if self.heads_first:
            return num_kv_heads, num_tiles, splits
        return num_tiles, num_kv_heads, splits


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """Memory for partial sums; one serves all layers, which run one after another."""

    parts: Tensor  # float32
    stats: Tensor  # float32
    counters: Tensor  # int32, zeros between launches

    @classmethod
    def of(
        cls, max_programs: int, block_m: int, padded_dim: int, device: torch.device
    ) -> Workspace:
        """For launches that split keys among ``max_programs`` (tiles * KV heads * splits)."""
        lines = max_programs * block_m
        return cls(
            parts=torch.empty(lines * padded_dim, dtype=torch.float32, device=device),
            stats=torch.empty(lines * 2, dtype=torch.float32, device=device),
            counters=torch.zeros(max_programs, dtype=torch.int32, device=device),
        )

    def splits(self, num_programs: int) -> int:
        """Into how many parts, a power of two, ``num_programs`` programs can split their keys."""
        return min(_MOST_SPLITS, 1 << max(0, (len(self.counters) // num_programs).bit_length() - 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class PrefixSums:
    """The sums over rows' first blocks by `attention_prefix`, from which a decode launch starts."""

    parts: Tensor  # float32 [splits, R, H, padded D]
    stats: Tensor  # float32 [splits, R, H, 2]
    num_blocks: Tensor  # [R] int32, how many of a row's first blocks are in the sums
    splits: int
    block_n: int


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
    is_mixed: bool = False,
    workspace: Workspace,
    prefix: PrefixSums | None = None,
    order: Tensor | None = None,
    tiles: Tensor | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    tile: Tile | None = None,
) -> None:
    """`reference.attention.paged_attention` into ``out`` [T, H, D].

    ``q`` [T, H, D] may be strided in T; ``sinks`` [H] is float32. A launch takes rows of one query
    (``is_decode``) or rows of any number. ``is_mixed``: the step has both kinds; with ``is_decode``
    the launch takes its rows of one query, else all others, whose ``tiles`` are `prompt_tiles`.
    Decode launches take ``prefix``, sums to start from, without a window, and ``order`` [R] int32,
    the row of each program: the longest first, so that no long one begins at the end.
    """
    assert kv_cache.is_contiguous()
    assert prefix is None or (is_decode and not is_mixed and shape.window is None)
    assert order is None or (is_decode and len(order) == len(seq_lens))
    tile = tile or best_tile(shape, q.dtype, is_decode=is_decode, is_mixed=is_mixed)
    # Decode steps have a kernel compiled without splits; others decide at run time, which is free.
    is_plain = is_decode and not is_mixed
    num_rows, block_size = len(seq_lens), kv_cache.shape[2]
    num_tiles = num_rows if is_decode else most_tiles(len(q), num_rows, tile.block_q)
    assert tiles is None or (is_mixed and not is_decode and len(tiles) == num_tiles)
    splits = workspace.splits(num_tiles * shape.num_kv_heads)
    launcher_of(_attention_kernel, tile.grid(num_tiles, shape.num_kv_heads, splits))(
        out, q, kv_cache[0], kv_cache[1], block_table, query_start, seq_lens,
        seq_lens if order is None else order, seq_lens if tiles is None else tiles,
        q if alibi_slopes is None else alibi_slopes,
        q if sinks is None else sinks,
        workspace.parts, workspace.stats, workspace.counters,
        *((q, q, seq_lens) if prefix is None else (prefix.parts, prefix.stats, prefix.num_blocks)),
        num_rows, block_table.stride(0), q.stride(0), splits, prefix.splits if prefix else 1,
        shape.scale,
        NUM_KV_HEADS=shape.num_kv_heads, GROUP=shape.group,
        D=shape.head_dim, D_PAD=shape.padded_dim, BLOCK_SIZE=block_size,
        BLOCK_Q=tile.block_q, BLOCK_M=tile.block_m, BLOCK_N=tile.block_n,
        HAS_SPLITS=splits > 1 or not is_plain, LEAST=tile.least, HAS_PREFIX=prefix is not None,
        PREFIX_BLOCK_N=prefix.block_n if prefix else 1, HAS_ORDER=order is not None,
        HAS_TILES=tiles is not None, WINDOW=shape.window or 0, SOFT_CAP=shape.soft_cap or 0.0,
        HAS_ALIBI=alibi_slopes is not None, HAS_SINKS=sinks is not None,
        IS_DECODE=is_decode, IS_MIXED=is_mixed,
        HEADS_FIRST=tile.heads_first, WHOLE_FIRST=tile.whole_first and shape.window is None,
        PRECISION=precision(q.dtype), num_warps=tile.num_warps, num_stages=tile.num_stages,
        **dependent_launch(),
    )  # fmt: skip


def most_tiles(num_tokens: int, num_rows: int, block_q: int) -> int:
    """The most tiles that ``num_rows`` rows with ``num_tokens`` queries in all are cut into."""
    return num_tokens // block_q + num_rows


@lru_cache
def best_tile(
    shape: AttentionShape, dtype: torch.dtype, *, is_decode: bool, is_mixed: bool = False
) -> Tile:
    """The tile that was fastest on an H200 (benchmarks/RESULTS.md), or a smaller one that fits."""
    tiles = _tiles(shape, dtype, is_decode=is_decode, is_mixed=is_mixed)
    return first_fitting(tiles, lambda tile: _shared_bytes(tile, shape, dtype))


def _tiles(
    shape: AttentionShape, dtype: torch.dtype, *, is_decode: bool, is_mixed: bool
) -> Iterator[Tile]:
    """The tiles to choose from, the fastest first."""
    wide = dtype == torch.float32 or shape.head_dim > 128
    decode_lines = max(_LEAST_LINES, triton.next_power_of_2(shape.group))
    lines = [(1, decode_lines)] if is_decode else [_tile_of_lines(shape, most) for most in _LINES]
    for block_q, block_m in lines:
        for block_n, num_stages in _WIDE_KEYS if wide else _KEYS:
            tile = Tile(
                block_q=block_q, block_m=block_m, block_n=block_n, num_warps=4,
                num_stages=num_stages,
                heads_first=is_mixed,  # so that spare tiles of the grid come last
            )  # fmt: skip
            if is_decode:
                programs = 4 if wide else 8
                tile = replace(tile, programs=programs, heads_first=True, whole_first=False)
            yield tile


def _shared_bytes(tile: Tile, shape: AttentionShape, dtype: torch.dtype) -> int:
    """Bytes of shared memory that the kernel takes, about, on GPUs before Hopper.

    They hold queries; weights, or queries once more; and the keys and values being loaded.
    """
    dim = shape.padded_dim
    beside = tile.block_n if dtype == torch.float32 else dim
    on_their_way = max(2, tile.num_stages - 1)
    return dtype.itemsize * (tile.block_m * (dim + beside) + on_their_way * tile.block_n * dim)


def _tile_of_lines(shape: AttentionShape, lines: int) -> tuple[int, int]:
    """(queries, lines) of a tile of about ``lines`` lines."""
    block_q = max(1, lines // triton.next_power_of_2(shape.group))
    return block_q, max(_LEAST_LINES, triton.next_power_of_2(block_q * shape.group))


def precision(dtype: torch.dtype) -> str:
    """``input_precision`` of matrix products: exact for float32; half types ignore it."""
    return "ieee" if dtype == torch.float32 else "tf32"
