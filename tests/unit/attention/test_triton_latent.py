"""The triton backend where values are part of the keys agrees with the definition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from quire.attention.backend import AttentionProblem
from quire.attention.triton_backend import TritonAttention
from quire.kernels.reference.attention import paged_attention
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.batches import FakeRows


def problem(**options: Any) -> AttentionProblem:
    defaults: dict[str, Any] = {
        "num_heads": 6,
        "num_kv_heads": 1,
        "head_dim": 20,
        "value_dim": 16,
        "scale": 0.3,
        "dtype": torch.float32,
        "device": "cpu",
    }
    return AttentionProblem(**{**defaults, **options})


@pytest.mark.parametrize("num_tokens", [[1, 1, 1], [7, 3, 20], [1, 20, 1]])
@pytest.mark.parametrize("is_mixed_graph", [False, True])
def test_backend_is_the_definition(num_tokens: list[int], is_mixed_graph: bool) -> None:
    lengths = [7, 70, 20]
    kv = LayerKV(num_kv_heads=1, head_dim=20, has_values=False)
    rows = FakeRows(KVLayout.of((kv,)), [[0] * n for n in lengths], block_size=16, for_gpu=True)
    generator = torch.Generator().manual_seed(0)
    (cache,) = rows.kv_caches
    cache.copy_(torch.randn(cache.shape, generator=generator))
    rows.num_computed = [n - last for n, last in zip(lengths, num_tokens, strict=True)]
    batch, places = rows.batch(dict(enumerate(num_tokens)))
    if is_mixed_graph:
        batch = replace(batch, num_decode_rows=None)
    q = torch.randn(len(places), 6, 20, generator=generator)
    backend = TritonAttention.build(problem())
    found = backend.forward(q, cache, backend.plan(batch, 0))
    table = batch.groups[0].block_table
    wanted = paged_attention(
        q, cache, table, batch.query_start, batch.seq_lens, scale=0.3, value_dim=16
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_it_cannot_serve_is_said() -> None:
    assert TritonAttention.why_not(problem(device="cuda", head_dim=576, value_dim=512)) == []
    (reason,) = TritonAttention.why_not(problem(device="cuda", head_dim=1088, value_dim=1024))
    assert "of which 1024 are the value" in reason
    for options in ({"window": 4}, {"has_sinks": True}, {"num_kv_heads": 2}):
        (reason,) = TritonAttention.why_not(problem(device="cuda", **options))
        assert "values in keys" in reason
