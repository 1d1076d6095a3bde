"""The triton backend agrees with the definition, for decode rows, chunks and both at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quire import platform
from quire.attention.backend import AttentionProblem
from quire.attention.triton_backend import TritonAttention
from quire.batch import Batch, SharedBlocks
from quire.kernels.reference.attention import paged_attention, write_kv
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.batches import FakeRows


def problem(**options: Any) -> AttentionProblem:
    defaults: dict[str, Any] = {
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 16,
        "scale": 0.3,
        "dtype": torch.float32,
        "device": "cpu",
    }
    return AttentionProblem(**{**defaults, **options})


def computed(
    lengths: list[int], num_tokens: list[int], *, window: int | None = None, num_shared: int = 0
) -> tuple[Batch, torch.Tensor]:
    """A batch of the rows' last tokens, all keys and values written, and queries [T, 4, 16].

    All rows begin with the first ``num_shared`` blocks of row 0.
    """
    kv = LayerKV(num_kv_heads=2, head_dim=16, window=window)
    rows = FakeRows(KVLayout.of((kv,)), [[0] * n for n in lengths], block_size=16, for_gpu=True)
    generator = torch.Generator().manual_seed(0)
    cache = rows.kv_caches[0]
    cache.copy_(torch.randn(cache.shape, generator=generator))
    rows.share_prefix(dict.fromkeys(range(1, len(lengths)), num_shared))
    rows.num_computed = [n - last for n, last in zip(lengths, num_tokens, strict=True)]
    batch, places = rows.batch(dict(enumerate(num_tokens)))
    k, v = torch.randn(2, len(places), 2, 16, generator=generator)
    write_kv(k, v, cache, batch.groups[0].slot_mapping)
    return batch, torch.randn(len(places), 4, 16, generator=generator)


def assert_is_the_definition(batch: Batch, q: torch.Tensor, window: int | None = None) -> None:
    backend = TritonAttention.build(problem(window=window))
    cache = batch.kv_caches[0]
    found = backend.forward(q, cache, backend.plan(batch, 0))
    wanted = paged_attention(
        q,
        cache,
        batch.groups[0].block_table,
        batch.query_start,
        batch.seq_lens,
        scale=0.3,
        window=window,
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("num_tokens", [[1, 1, 1], [7, 3, 20], [1, 20, 1]])
@pytest.mark.parametrize("is_mixed_graph", [False, True])
def test_backend_is_the_definition(
    window: int | None, num_tokens: list[int], is_mixed_graph: bool
) -> None:
    batch, q = computed([7, 70, 20], num_tokens, window=window)
    if is_mixed_graph:
        batch = replace(batch, num_decode_rows=None)
    assert_is_the_definition(batch, q, window)


def test_blocks_that_rows_share_are_those_of_the_first_member() -> None:
    """Rows 3, 0 and 2 are told to share: what is read of their blocks is what row 3 has there."""
    batch, q = computed([70, 90, 40, 33], [1, 1, 1, 1], num_shared=2)
    shared = SharedBlocks(
        members=torch.tensor([3, 0, 2, -1]).int(), num_blocks=torch.tensor([2, 0, 2, 2]).int()
    )
    (group,) = batch.groups
    batch = replace(batch, groups=(replace(group, shared=shared),))
    assert_is_the_definition(batch, q)
    table = group.block_table.clone()
    table[[0, 2], :2] = 0
    batch.kv_caches[0][:, 0] = float("nan")
    backend = TritonAttention.build(problem())
    wanted = backend.forward(q, batch.kv_caches[0], backend.plan(batch, 0))
    batch = replace(batch, groups=(replace(group, shared=shared, block_table=table),))
    found = backend.forward(q, batch.kv_caches[0], backend.plan(batch, 0))
    assert torch.equal(found, wanted)


def test_what_it_cannot_serve_is_said() -> None:
    assert TritonAttention.why_not(problem(device="cuda")) == []
    assert "the model is on cpu" in TritonAttention.why_not(problem())[0]
    assert "5 query heads" in TritonAttention.why_not(problem(device="cuda", num_heads=5))[0]
    assert "512" in TritonAttention.why_not(problem(device="cuda", head_dim=512))[0]


@pytest.mark.parametrize(
    ("capability", "cached", "remedy"),
    [
        ((7, 5), torch.float8_e5m2, "auto"),
        ((7, 5), torch.float8_e4m3fn, "auto"),
        ((8, 0), torch.float8_e5m2, ""),
        ((8, 6), torch.float8_e4m3fn, "fp8_e5m2"),
        ((8, 9), torch.float8_e4m3fn, ""),
        ((9, 0), torch.float8_e4m3fn, ""),
    ],
)
def test_older_gpus_lack_formats_of_eight_bits(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], cached: torch.dtype, remedy: str
) -> None:
    monkeypatch.setattr(platform, "compute_capability", lambda: capability)
    reasons = TritonAttention.why_not(problem(device="cuda", cache_dtype=cached))
    assert bool(reasons) == bool(remedy)
    assert all(reason.endswith(f"take kv_cache_dtype={remedy!r}") for reason in reasons)
    assert all(reason.startswith("kv_cache_dtype='fp8_e") for reason in reasons)
