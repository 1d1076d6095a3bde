"""Rows for attention backends on a CPU, and how far their results are from the definition."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.attention.cpp_backend import CppAttention, CppPlan
from quire.attention.torch_backend import TorchAttention
from quire.kernels.reference.attention import paged_attention, write_keys
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.batches import FakeRows

HEAD_DIM = 8
SLOPES = (0.5, 0.25, 0.125, 0.0625)


def attention_problem(**options: Any) -> AttentionProblem:
    defaults: dict[str, Any] = {
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": HEAD_DIM,
        "scale": 0.3,
        "dtype": torch.float32,
        "device": "cpu",
    }
    return AttentionProblem(**{**defaults, **options})


def fake_rows(problem: AttentionProblem, lengths: list[int], block_size: int = 4) -> FakeRows:
    kv = LayerKV(
        num_kv_heads=problem.num_kv_heads,
        head_dim=problem.head_dim,
        window=problem.window,
        has_values=problem.value_dim is None,
    )
    rows = [[0] * length for length in lengths]
    return FakeRows(KVLayout.of((kv,)), rows, block_size=block_size, dtype=problem.dtype)


def difference_from_definition(
    kind: type[TorchAttention] | type[CppAttention],
    problem: AttentionProblem,
    lengths: list[int],
    num_tokens: list[int],
    *,
    block_size: int = 4,
    shared: dict[int, int] | None = None,
    offset: float = 0.0,
) -> float:
    """Largest difference from the definition, of the last tokens of rows of these lengths.

    ``shared`` rows begin with that many blocks of row 0. ``offset``: added to queries and keys.
    """
    rows = fake_rows(problem, lengths, block_size)
    generator = torch.Generator().manual_seed(len(lengths))

    def random(num_rows: int, num_heads: int, mean: float = 0.0) -> Tensor:
        shape = (num_rows, num_heads, problem.head_dim)
        return (mean + torch.randn(shape, generator=generator)).to(problem.dtype)

    rows.share_prefix(shared or {})
    before = {
        row: length - last - rows.num_computed[row]
        for row, (length, last) in enumerate(zip(lengths, num_tokens, strict=True))
    }
    if any(before.values()):
        batch, places = rows.batch({row: count for row, count in before.items() if count})
        kv = [random(len(places), problem.num_kv_heads, mean) for mean in (offset, 0.0)]
        _write(kv[0], kv[1], rows.kv_caches[0], batch.groups[0].slot_mapping)
    batch, places = rows.batch(dict(enumerate(num_tokens)))
    q = random(len(places), problem.num_heads, offset)
    k, v = (random(len(places), problem.num_kv_heads, mean) for mean in (offset, 0.0))
    backend = kind.build(problem)
    plan = backend.plan(batch, 0)
    assert _shares(plan) == (shared is not None)
    _write(k, v, rows.kv_caches[0], batch.groups[0].slot_mapping)
    sinks = torch.randn(problem.num_heads, generator=generator) if problem.has_sinks else None
    got = backend.forward(q, rows.kv_caches[0], plan, sinks)
    expected = paged_attention(
        q.float(),
        rows.kv_caches[0],
        batch.groups[0].block_table,
        batch.query_start,
        batch.seq_lens,
        scale=problem.scale,
        window=problem.window,
        soft_cap=problem.soft_cap,
        alibi_slopes=problem.alibi_slopes,
        sinks=sinks,
        value_dim=problem.value_dim,
    )
    assert got.shape == (*q.shape[:2], problem.value_dim or problem.head_dim)
    assert got.dtype == problem.dtype
    return float((got.float() - expected).abs().max())


def _shares(plan: Any) -> bool:
    if isinstance(plan, CppPlan):
        return plan.prefixes is not None or (plan.others is not None and _shares(plan.others))
    return bool(plan.shared)


def _write(k: Tensor, v: Tensor, kv_cache: Tensor, slots: Tensor) -> None:
    """To a cache with values or without."""
    for one, plane in zip((k, v), kv_cache.split(1), strict=False):
        write_keys(one, plane, slots)


MIXES = [
    pytest.param([5, 17, 40, 3], [1, 1, 1, 1], id="decode"),
    pytest.param([6, 40], [6, 40], id="prompts"),
    pytest.param([30, 29, 28, 60, 9], [1, 9, 10, 17, 9], id="mixed"),
    pytest.param([1], [1], id="first-token"),
]
OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"window": 6}, id="window"),
    pytest.param({"soft_cap": 0.7}, id="soft-cap"),
    pytest.param({"alibi_slopes": SLOPES}, id="alibi"),
    pytest.param({"num_kv_heads": 4}, id="every-head-its-own"),
    pytest.param({"num_kv_heads": 1, "window": 3, "soft_cap": 2.0}, id="one-kv-head"),
    pytest.param({"has_sinks": True}, id="sinks"),
    pytest.param({"has_sinks": True, "window": 6}, id="sinks-window"),
    pytest.param({"num_kv_heads": 1, "value_dim": 5}, id="values-in-keys"),
]


SHARED_OPTIONS: list[dict[str, Any]] = [
    {},
    {"soft_cap": 0.7},
    {"num_kv_heads": 1},
    {"has_sinks": True},
    {"num_kv_heads": 1, "value_dim": 6},
]
