"""How a product is cut into tiles, and the source of the kernel for such tiles. Needs no GPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quire.kernels import hopper
from quire.kernels.cuda import compiler

STEP = 64  # values of K in one tile
GROUP_LINES = 64  # that one warpgroup multiplies
_BARRIER_BYTES = 512
_ALIGNMENT = 1024
_MOST_STAGES = 12
_SHORTEST_PART = 4  # of K, in steps
_MOST_PARTS = 4  # of K, so that a cluster has at most the 8 blocks that every Hopper allows

# Clock cycles and bytes per cycle, fitted to the times of 1,700 products on an H200.
_CYCLES_OF_COLUMN = 2.4  # to multiply 64 lines and one step of K with one column
_CACHE_BYTES = 5800  # per cycle, for all blocks together
_MEMORY_BYTES = 3000  # per cycle, for all blocks together
_BLOCKS_FOR_MEMORY = 105  # that it takes to read memory as fast as that
_CYCLES_OF_WAVE = 900
_CYCLES_OF_PARTS = 900
_CYCLES_OF_SHARED_COLUMN = 5
_CYCLES_OF_IDLE = 12000  # for all processors, where a block of the next kernel has room on each
_MOST_PADDING = 7 / 6


@dataclass(frozen=True, slots=True)
class Tile:
    """What a cluster of blocks computes; `product.cu` explains the first four in full."""

    groups: int  # warpgroups of a block that multiply: 64 lines each
    columns: int  # of the result, per block
    tall: int = 1  # blocks of a cluster below each other, with different lines
    parts: int = 1  # that K is split into, a block for each
    room: int = 0  # bytes of shared memory that a block leaves to a block of the next kernel

    @property
    def cluster(self) -> int:
        """Blocks of a cluster."""
        return self.tall * self.parts

    @property
    def lines(self) -> int:
        return GROUP_LINES * self.groups * self.tall

    @property
    def threads(self) -> int:
        """Threads of a block: one more warpgroup only loads tiles."""
        return 128 * (self.groups + 1)

    @property
    def stages(self) -> int:
        own_bytes = hopper.SHARED_BYTES - _ALIGNMENT - _BARRIER_BYTES - self.room
        return min(_MOST_STAGES, own_bytes // self._stage_bytes)

    @property
    def shared_bytes(self) -> int:
        return self.stages * self._stage_bytes + _ALIGNMENT

    @property
    def _stage_bytes(self) -> int:
        return (GROUP_LINES * self.groups + self.columns) * STEP * 2


# Number of lines -> the (groups, tall) that tiles for it may have.
_HEIGHTS = {64: [(1, 1)], 128: [(1, 2)], 192: [(3, 1), (2, 2)], 256: [(2, 2)]}
HEIGHTS = tuple(_HEIGHTS)
# More lines than one tile holds. Which tile is fastest depends on how full the last wave of blocks
# is; from so many lines on that the waves hardly matter, it is the largest one, which reads least.
MANY_LINES = (512, 768, 2048, 8192)
_MOST_COLUMNS = {1: 256, 2: 256, 3: 160}  # by groups: the sums must fit into the registers
_MOST_COLUMNS_WITH_ROOM = {1: 128, 2: 96, 3: 48}  # leaves registers to the next kernel's block, too
_LEAST_STAGES = 4
# Of a search of so few lines, which takes as long as reading the weight, with a head's columns.
_SEARCH_TILES = {64: Tile(1, 192), 128: Tile(2, 192)}
_LARGE = 2**23  # values of a weight
_MOST_LINES_OF_LARGE = 192  # more take longer to multiply than the weight to read, with any kernel


def height_of(lines: int) -> int:
    """The entry of `HEIGHTS` or `MANY_LINES` whose tile serves so many lines."""
    return next((most for most in (*HEIGHTS, *MANY_LINES) if lines <= most), MANY_LINES[-1])


def best_tiles(
    n: int, k: int, *, gated: bool, most_clusters: Callable[[int], int], room: int = 0
) -> dict[int, Tile]:
    """The tiles for a weight [n, k], by the number of lines up to which each is the fastest way.

    Numbers of lines for which cuBLAS is faster are missing. ``most_clusters`` tells how many
    clusters of so many blocks the device runs at once. ``room``: bytes of shared memory that a
    block of the next kernel takes; a short product leaves it free, since it gains more than it
    loses when that kernel begins beside it.
    """
    room = room if n * k < _LARGE and not gated else 0
    tiles = {
        lines: _best_tile(lines, n, k, most_clusters, room) for lines in _heights(n, k, gated=gated)
    }
    return {lines: tile for lines, tile in tiles.items() if tile is not None}


def best_search_tiles(n: int, k: int, *, most_clusters: Callable[[int], int]) -> dict[int, Tile]:
    """As `best_tiles`, for a kernel that searches the product instead of writing it."""
    tiles = {
        lines: _SEARCH_TILES.get(lines) or _best_tile(lines, n, k, most_clusters, 0, most_parts=1)
        for lines in (*HEIGHTS, *MANY_LINES)
    }
    return {lines: tile for lines, tile in tiles.items() if tile is not None}


def _heights(n: int, k: int, *, gated: bool) -> tuple[int, ...]:
    """The numbers of lines to find tiles for. With a large weight, many lines are faster here only
    where the gate saves a kernel after the product."""
    if gated:
        return (*HEIGHTS, *MANY_LINES)
    most = HEIGHTS[-1] if n * k < _LARGE else _MOST_LINES_OF_LARGE
    return tuple(height for height in HEIGHTS if height <= most)


def _best_tile(
    lines: int,
    n: int,
    k: int,
    most_clusters: Callable[[int], int],
    room: int,
    most_parts: int = _MOST_PARTS,
) -> Tile | None:
    most_columns = _MOST_COLUMNS_WITH_ROOM if room else _MOST_COLUMNS
    most_parts = 1 if lines in MANY_LINES else min(most_parts, k // STEP // _SHORTEST_PART)
    times = {
        tile: cycles(tile, lines, n, k, most_clusters(tile.cluster))
        for groups, tall in _HEIGHTS[min(lines, HEIGHTS[-1])]
        for parts in range(1, max(1, most_parts) + 1)
        for columns in range(_least_columns(lines, groups), most_columns[groups] + 1, 16)
        for tile in [Tile(groups, columns, tall, parts, room)]
        if tile.stages >= _LEAST_STAGES or not room
    }
    tile = min(times, key=times.__getitem__, default=None)
    if tile is not None and times[tile] < float("inf"):
        return tile
    return _best_tile(lines, n, k, most_clusters, 0) if room else None


def _least_columns(lines: int, groups: int) -> int:
    return _MOST_COLUMNS[groups] if lines == MANY_LINES[-1] else 32


def cycles(tile: Tile, lines: int, n: int, k: int, most_clusters: int) -> float:
    """About how many cycles a product takes, apart from what all tiles have in common.

    Infinity: the tile cannot be used.
    """
    if most_clusters == 0:
        return float("inf")
    strips = -(-n // tile.columns)
    clusters = strips * -(-lines // tile.lines)
    waves = -(-clusters // most_clusters)
    if tile.parts > 1 and waves > 1:
        return float("inf")  # blocks that split K compute one tile each
    blocks = min(clusters, most_clusters) * tile.cluster
    steps = -(-k // STEP // tile.parts)
    height = GROUP_LINES * tile.groups
    step = max(
        _CYCLES_OF_COLUMN * tile.columns * tile.groups,
        (height + tile.columns / tile.tall) * STEP * 2 * blocks / _CACHE_BYTES,
    )
    memory = strips * tile.columns * k * 2 / _MEMORY_BYTES / min(1, blocks / _BLOCKS_FOR_MEMORY)
    shared = _CYCLES_OF_PARTS + _CYCLES_OF_SHARED_COLUMN * tile.columns * tile.groups
    # Blocks of the next kernel come soonest where every processor has a block of this one.
    idle = 1 - blocks / (most_clusters * tile.cluster) if tile.room else 0
    return (
        max(waves * steps * step, memory)
        + waves * _CYCLES_OF_WAVE
        + (shared if tile.parts > 1 else 0)
        + idle * _CYCLES_OF_IDLE
    )


def wastes_little(lines: int) -> bool:
    """Whether little of the tiles for so many lines is padding."""
    tallest = HEIGHTS[-1]
    return -(-lines // tallest) * tallest <= _MOST_PADDING * lines


def source_of(
    file: str, tile: Tile, *, is_fp16: bool, activation: int | None = None
) -> tuple[str, list[str]]:
    """(CUDA C++, ``NAME=value`` to compile it with) of a file's kernel for such tiles."""
    values = {
        "STEP": STEP,
        "GROUPS": tile.groups,
        "COLUMNS": tile.columns,
        "TALL": tile.tall,
        "PARTS": tile.parts,
        "STAGES": tile.stages,
        "HAS_COMPANY": int(tile.room > 0),
        "IS_FP16": int(is_fp16),
        "GATED": int(activation is not None),
        "ACTIVATION": activation or 0,
    }
    multiply_add = _multiply_add(tile.columns, "f16" if is_fp16 else "bf16")
    source = multiply_add + compiler.source_of("product_tiles.cu", file)
    return source, [f"{name}={value}" for name, value in values.items()]


def _multiply_add(columns: int, dtype: str) -> str:
    """C++ of a ``wgmma`` of 64 lines, 16 values of K and so many columns; it names every sum."""
    count = columns // 2  # sums of one thread
    sums = ", ".join(f"%{i}" for i in range(count))
    operands = ", ".join(f'"+f"(sum[{i}])' for i in range(count))
    return f"""
__device__ __forceinline__ void multiply_add(float (&sum)[{count}], unsigned long long left,
                                             unsigned long long right, int adds) {{
    asm volatile("{{\\n.reg .pred adds;\\nsetp.ne.b32 adds, %{count + 2}, 0;\\n"
                 "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.{dtype}.{dtype} {{{sums}}}, "
                 "%{count}, %{count + 1}, adds, 1, 1, 0, 0;\\n}}"
                 : {operands} : "l"(left), "l"(right), "r"(adds));
}}
"""
