"""How products are cut into tiles, and that the kernel compiles for Hopper. Needs no GPU."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from quire.kernels import hopper
from quire.kernels.cuda import compiler
from quire.kernels.cuda.decode_attention import MANY, CompiledFor
from quire.kernels.cuda.product_tile import (
    HEIGHTS,
    MANY_LINES,
    Tile,
    best_search_tiles,
    best_tiles,
    cycles,
    height_of,
    source_of,
    wastes_little,
)

MOST_CLUSTERS = {1: 132, 2: 66, 3: 40, 4: 30, 6: 18, 8: 15}  # of an H200
# (n, k) of products of an 0.6B and an 8B model, a head, and the smallest there can be
WEIGHTS = [(4096, 1024), (1024, 2048), (28672, 4096), (4096, 14336), (128256, 4096), (32, 8)]
# of the kernel behind q, k and v of an 0.6B
BEHIND = CompiledFor(
    head=128, group=2, kv_heads=8, block=64, has_norms=True, is_fp16=False, cut=MANY
)
MULTIPROCESSOR_BYTES = 228 * 1024
MULTIPROCESSOR_REGISTERS = 65536
REGISTER_COUNT = 0x2F  # an entry of a compiled kernel


def chosen(n: int, k: int, *, gated: bool = False, room: int = 0) -> dict[int, Tile]:
    return best_tiles(n, k, gated=gated, most_clusters=MOST_CLUSTERS.__getitem__, room=room)


def registers(code: bytes) -> int:
    """Of a thread of the one kernel in machine code: its "info" sections are lists of (format,
    name, size, value), where only format 4 has a value behind its size."""
    offset = struct.unpack_from("<Q", code, 0x28)[0]
    size, count, names = struct.unpack_from("<HHH", code, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", code, offset + i * size) for i in range(count)]
    for name, _, _, _, start, length in sections:
        if not code[sections[names][4] + name :].startswith(b".nv.info"):
            continue
        at = start
        while at < start + length:
            kind, entry, value_size = struct.unpack_from("<BBH", code, at)
            if (kind, entry) == (4, REGISTER_COUNT):
                return int(struct.unpack_from("<I", code, at + 8)[0])
            at += 4 + (value_size if kind == 4 else 0)
    raise AssertionError("no kernel")


@pytest.mark.parametrize(("n", "k"), WEIGHTS)
@pytest.mark.parametrize("gated", [False, True])
def test_tiles_fit_where_they_are_computed(n: int, k: int, gated: bool) -> None:
    for lines, tile in chosen(n, k, gated=gated).items():
        assert tile.cluster <= 8
        assert tile.columns % 16 == 0
        assert tile.stages >= 3
        assert tile.shared_bytes + 16 * tile.stages <= hopper.SHARED_BYTES
        if lines <= HEIGHTS[-1]:
            assert tile.lines >= lines
        if tile.parts > 1:
            assert -(-n // tile.columns) <= MOST_CLUSTERS[tile.cluster]  # one tile a cluster
            sums = 4 * tile.columns * 64 * tile.groups
            assert sums <= tile.shared_bytes - 1024  # left where the stages were


def test_many_columns_are_cut_so_that_all_processors_are_busy() -> None:
    tile = chosen(28672, 4096, gated=True)[256]
    assert tile == Tile(2, 224, 2)  # 128 strips, two for each of 64 clusters
    assert chosen(28672, 4096, gated=True)[192] == Tile(3, 112)  # 256 strips


def test_a_taller_tile_is_taken_where_it_is_faster() -> None:
    tiles = chosen(6144, 1024, gated=True)
    assert tiles[192] == tiles[256]


def test_large_weights_are_cublas_when_multiplying_takes_longest() -> None:
    assert tuple(chosen(4096, 1024)) == HEIGHTS
    assert tuple(chosen(4096, 14336)) == (64, 128, 192)
    assert tuple(chosen(28672, 4096, gated=True)) == (*HEIGHTS, *MANY_LINES)
    assert [height_of(lines) for lines in (2, 64, 65, 129, 256, 257, 513, 2049, 10_000)] == [
        *(64, 64, 128, 192, 256, 512, 768, 8192, 8192)
    ]


def test_many_lines_have_the_tile_whose_last_wave_is_full() -> None:
    small, large = chosen(6144, 1024, gated=True), chosen(28672, 4096, gated=True)
    assert small[512] == Tile(2, 192, 2)  # 64 clusters, in one wave
    assert small[768] == Tile(2, 144, 2)  # 129, in two
    assert large[768] == Tile(2, 224, 2)  # 384, in six
    assert small[8192] == large[8192] == Tile(2, 256, 2)  # waves matter no more: the largest


def test_a_short_product_leaves_room_for_a_block_of_the_kernel_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    room = BEHIND.block_bytes
    behind = compiler.compiled(compiler.source_of("decode_attention.cu"), BEHIND.defines)
    tiles = chosen(4096, 1024, room=room)
    assert tiles.keys() == chosen(4096, 1024).keys()
    for lines, tile in tiles.items():
        blocks = -(-4096 // tile.columns) * -(-lines // tile.lines) * tile.cluster
        assert blocks == 128  # of 132 processors: on nearly each of them both begin
        assert tile.shared_bytes + 16 * tile.stages + 1024 + room <= MULTIPROCESSOR_BYTES
        code = compiler.compiled(*source_of("product.cu", tile, is_fp16=False))
        both = registers(code) * tile.threads + registers(behind) * 32 * MANY.warps
        assert both <= MULTIPROCESSOR_REGISTERS


def test_a_long_product_or_one_without_enough_stages_leaves_no_room() -> None:
    room = BEHIND.block_bytes
    assert chosen(6144, 4096, room=room) == chosen(6144, 4096)
    assert chosen(6144, 1024, gated=True, room=room) == chosen(6144, 1024, gated=True)
    assert chosen(4096, 1024, room=220_000) == chosen(4096, 1024)


def test_few_columns_have_k_shared_out() -> None:
    assert chosen(1024, 2048)[64].parts > 1
    assert chosen(1024, 128)[64].parts == 1  # too short for that
    assert chosen(1024, 2048, gated=True)[512].parts == 1
    assert cycles(Tile(1, 32, 1, 4), 64, 4096, 4096, 30) == float("inf")  # in more than one wave


@pytest.mark.parametrize(
    ("lines", "expected"), [(384, False), (448, True), (640, False), (672, True), (8192, True)]
)
def test_lines_that_fill_tiles(lines: int, expected: bool) -> None:
    assert wastes_little(lines) == expected


@pytest.mark.parametrize("is_fp16", [False, True])
@pytest.mark.parametrize(
    ("tile", "activation"),
    [(Tile(1, 32), None), (Tile(1, 64, 1, 4), 1), (Tile(1, 144, 2, 3), None), (Tile(2, 224, 2), 0),
     (Tile(2, 256, 2), None), (Tile(2, 208, 2, 2), 2), (Tile(3, 112), 0), (Tile(3, 160, 1, 4), 2),
     (Tile(3, 48, room=83_904), None)],
)  # fmt: skip
def test_the_kernel_compiles_for_hopper(
    tile: Tile,
    activation: int | None,
    is_fp16: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    source = source_of("product.cu", tile, is_fp16=is_fp16, activation=activation)
    code = compiler.compiled(*source)
    assert code[:4] == b"\x7fELF"
    assert b"product" in code
    monkeypatch.setattr(compiler, "_compile", None)  # it is kept
    assert compiler.compiled(*source) == code


def test_a_search_splits_no_k_and_has_the_tile_whose_last_wave_is_full() -> None:
    for n, k in WEIGHTS:
        tiles = best_search_tiles(n, k, most_clusters=MOST_CLUSTERS.__getitem__)
        assert tuple(tiles) == (*HEIGHTS, *MANY_LINES)
        for lines, tile in tiles.items():
            assert tile.parts == 1
            assert tile.lines >= min(lines, HEIGHTS[-1])
    tiles = best_search_tiles(151936, 1024, most_clusters=MOST_CLUSTERS.__getitem__)
    assert tiles[192] == Tile(3, 144)  # 1,056 of 132 blocks
    assert tiles[256] == Tile(2, 256, 2)  # 594 of 66 clusters


@pytest.mark.parametrize("is_fp16", [False, True])
@pytest.mark.parametrize("tile", [Tile(1, 192), Tile(2, 192), Tile(3, 144), Tile(2, 256, 2)])
def test_the_search_compiles_for_hopper(
    tile: Tile, is_fp16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    code = compiler.compiled(*source_of("best_column.cu", tile, is_fp16=is_fp16))
    assert b"best_column" in code
    assert registers(code) * tile.threads <= MULTIPROCESSOR_REGISTERS


def test_a_kernel_that_does_not_compile_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler.knobs.cache, "dir", str(tmp_path))
    with pytest.raises(RuntimeError, match="nonsense"):
        compiler.compiled("nonsense;")
    assert not list(tmp_path.iterdir())


def test_a_device_that_runs_no_clusters_has_tiles_without() -> None:
    tiles = best_tiles(1024, 2048, gated=False, most_clusters=lambda cluster: 132 * (cluster == 1))
    assert tiles.keys() == {64, 192}
    assert tiles[64].cluster == tiles[192].cluster == 1
