"""Kernels fit the shared memory of GPUs that are smaller than an H200, whose tiles stay as they are
measured."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from quire.kernels.triton import attention, attention_latent, launch, moe
from quire.kernels.triton.attention import AttentionShape, Tile, best_tile
from quire.kernels.triton.attention_latent import LatentShape, LatentTile, latent_tile
from quire.kernels.triton.attention_prefix import best_prefix_tile
from quire.kernels.triton.moe import best_tiles

T4, A10, A100, H200 = 65_536, 101_376, 166_912, 232_448
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture
def room(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Bytes of shared memory that a program has, by a parameter."""
    monkeypatch.setattr(launch, "shared_memory", lambda: request.param)
    caches = (best_tile, latent_tile, best_tiles)
    for cached in caches:
        cached.cache_clear()
    yield request.param
    for cached in caches:
        cached.cache_clear()


def shape_of(head_dim: int, group: int) -> AttentionShape:
    return AttentionShape(num_kv_heads=2, group=group, head_dim=head_dim, scale=0.1)


def latent_of(num_heads: int) -> LatentShape:
    return LatentShape(num_heads=num_heads, head_dim=576, value_dim=512, scale=0.1)


@pytest.mark.parametrize("room", [H200], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_dim", [64, 128, 256])
@pytest.mark.parametrize(("group", "block_q", "lines"), [(1, 64, 1), (4, 16, 4), (7, 8, 8)])
def test_attention_on_an_h200_has_the_tiles_that_were_measured(
    room: int, dtype: torch.dtype, head_dim: int, group: int, block_q: int, lines: int
) -> None:
    shape = shape_of(head_dim, group)
    wide = dtype == torch.float32 or head_dim == 256
    keys, stages = (32, 2) if wide else (64, 5)
    prompts = Tile(block_q=block_q, block_m=64, block_n=keys, num_warps=4, num_stages=stages)
    assert best_tile(shape, dtype, is_decode=False) == best_prefix_tile(shape, dtype) == prompts
    assert best_tile(shape, dtype, is_decode=True) == Tile(
        block_q=1, block_m=16, block_n=keys, num_warps=4, num_stages=stages,
        programs=4 if wide else 8, heads_first=True, whole_first=False,
    )  # fmt: skip


@pytest.mark.parametrize("room", [H200], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_latents_on_an_h200_have_the_tiles_that_were_measured(
    room: int, dtype: torch.dtype
) -> None:
    keys = 16 if dtype == torch.float32 else 32
    many = LatentTile(group=64, block_q=1, block_m=64, block_n=keys, num_warps=8)
    prompts = LatentTile(group=16, block_q=4, block_m=64, block_n=keys, num_warps=8)
    decode = LatentTile(group=16, block_q=1, block_m=16, block_n=keys, num_warps=4)
    if dtype != torch.float32:
        decode = LatentTile(group=16, block_q=1, block_m=16, block_n=64, num_warps=8, num_stages=5)
    assert latent_tile(latent_of(128), dtype, is_decode=True) == many
    assert latent_tile(latent_of(16), dtype, is_decode=False) == prompts
    assert latent_tile(latent_of(16), dtype, is_decode=True) == decode


@pytest.mark.parametrize("room", [A100, H200], indirect=True)
@pytest.mark.parametrize("width", [16, 32, 64, 128])
def test_experts_keep_the_tiles_that_were_measured(room: int, width: int) -> None:
    assert best_tiles(width, torch.bfloat16) == (moe._GATE_UP[width], moe._DOWN[width])
    exact = moe.Tile(block_m=width, block_n=32, block_k=32, num_warps=4, num_stages=2)
    assert best_tiles(width, torch.float32) == (exact, exact)


@pytest.mark.parametrize("room", [T4, A10, A100], indirect=True)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiles_are_made_to_fit(room: int, dtype: torch.dtype) -> None:
    for head_dim in (64, 96, 128, 256):
        for group in (1, 4, 16):
            shape = shape_of(head_dim, group)
            for is_decode in (False, True):
                tile = best_tile(shape, dtype, is_decode=is_decode)
                assert attention._shared_bytes(tile, shape, dtype) <= room
    if room > T4:
        for num_heads in (16, 128):
            latents = latent_tile(latent_of(num_heads), dtype, is_decode=False)
            assert attention_latent._shared_bytes(latents, latent_of(num_heads), dtype) <= room
