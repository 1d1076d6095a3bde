"""The triton backend agrees with the definition, for decode rows, chunks and both at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quire.attention.backend import AttentionProblem
from quire.attention.triton_backend import TritonAttention
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


@pytest.mark.parametrize("window", [None, 6])
@pytest.mark.parametrize("num_tokens", [[1, 1, 1], [7, 3, 20], [1, 20, 1]])
def test_backend_is_the_definition(window: int | None, num_tokens: list[int]) -> None:
    asked = problem(window=window)
    kv = LayerKV(num_kv_heads=2, head_dim=16, window=window)
    lengths = [7, 70, 20]
    rows = FakeRows(
        KVLayout.of((kv,)),
        [[0] * n for n in lengths],
        block_size=16,
        dtype=torch.float32,
        for_gpu=True,
    )
    generator = torch.Generator().manual_seed(0)
    earlier = {r: n - last for r, (n, last) in enumerate(zip(lengths, num_tokens, strict=True))}
    for counts in ({r: n for r, n in earlier.items() if n}, dict(enumerate(num_tokens))):
        if not counts:
            continue
        batch, places = rows.batch(counts)
        k, v = torch.randn(2, len(places), 2, 16, generator=generator)
        write_kv(k, v, rows.kv_caches[0], batch.groups[0].slot_mapping)
    q = torch.randn(len(places), 4, 16, generator=generator)
    backend = TritonAttention.build(asked)
    found = backend.forward(q, rows.kv_caches[0], backend.plan(batch, 0))
    wanted = paged_attention(
        q,
        rows.kv_caches[0],
        batch.groups[0].block_table,
        batch.query_start,
        batch.seq_lens,
        scale=0.3,
        window=window,
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_it_cannot_serve_is_said() -> None:
    assert TritonAttention.why_not(problem(device="cuda")) == []
    assert "the model is on cpu" in TritonAttention.why_not(problem())[0]
    assert "5 query heads" in TritonAttention.why_not(problem(device="cuda", num_heads=5))[0]
    assert "512" in TritonAttention.why_not(problem(device="cuda", head_dim=512))[0]
