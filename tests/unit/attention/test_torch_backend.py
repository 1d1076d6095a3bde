"""The torch backend agrees with the definition of paged attention, whatever the mix of rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import quire.attention.torch_backend as torch_backend
from quire.attention.backend import AttentionProblem
from quire.attention.torch_backend import TorchAttention
from quire.kernels.reference.attention import paged_attention, write_keys
from quire.kv_layout import KVLayout, LayerKV
from tests.fakes.batches import FakeRows

_HEAD_DIM = 8
_SLOPES = (0.5, 0.25, 0.125, 0.0625)


def _problem(**options: Any) -> AttentionProblem:
    defaults: dict[str, Any] = {
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": _HEAD_DIM,
        "scale": 0.3,
        "dtype": torch.float32,
        "device": "cpu",
    }
    return AttentionProblem(**{**defaults, **options})


def _rows(problem: AttentionProblem, lengths: list[int], block_size: int = 4) -> FakeRows:
    kv = LayerKV(
        num_kv_heads=problem.num_kv_heads,
        head_dim=problem.head_dim,
        window=problem.window,
        has_values=problem.value_dim is None,
    )
    rows = [[0] * length for length in lengths]
    return FakeRows(KVLayout.of((kv,)), rows, block_size=block_size, dtype=problem.dtype)


def _difference(
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
    rows = _rows(problem, lengths, block_size)
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
    backend = TorchAttention.build(problem)
    plan = backend.plan(batch, 0)
    assert bool(plan.shared) == (shared is not None)
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


def _write(k: Tensor, v: Tensor, kv_cache: Tensor, slots: Tensor) -> None:
    """To a cache with values or without."""
    for one, plane in zip((k, v), kv_cache.split(1), strict=False):
        write_keys(one, plane, slots)


_MIXES = [
    pytest.param([5, 17, 40, 3], [1, 1, 1, 1], id="decode"),
    pytest.param([6, 40], [6, 40], id="prompts"),
    pytest.param([30, 29, 28, 60, 9], [1, 9, 10, 17, 9], id="mixed"),
    pytest.param([1], [1], id="first-token"),
]
_OPTIONS = [
    pytest.param({}, id="plain"),
    pytest.param({"window": 6}, id="window"),
    pytest.param({"soft_cap": 0.7}, id="soft-cap"),
    pytest.param({"alibi_slopes": _SLOPES}, id="alibi"),
    pytest.param({"num_kv_heads": 4}, id="every-head-its-own"),
    pytest.param({"num_kv_heads": 1, "window": 3, "soft_cap": 2.0}, id="one-kv-head"),
    pytest.param({"has_sinks": True}, id="sinks"),
    pytest.param({"has_sinks": True, "window": 6}, id="sinks-window"),
    pytest.param({"num_kv_heads": 1, "value_dim": 5}, id="values-in-keys"),
]


@pytest.mark.parametrize("options", _OPTIONS)
@pytest.mark.parametrize(("lengths", "num_tokens"), _MIXES)
def test_equals_the_definition(
    options: dict[str, Any], lengths: list[int], num_tokens: list[int]
) -> None:
    assert _difference(_problem(**options), lengths, num_tokens) < 2e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(("lengths", "num_tokens"), _MIXES)
def test_half_precision_is_close(
    dtype: torch.dtype, lengths: list[int], num_tokens: list[int]
) -> None:
    assert _difference(_problem(dtype=dtype), lengths, num_tokens) < 0.03


_LARGE_OPTIONS: list[dict[str, Any]] = [
    {},
    {"soft_cap": 900.0},
    {"has_sinks": True},
    {"num_kv_heads": 1, "value_dim": 5},
]


# The products of queries and keys are about 8 * offset^2: 800, where bfloat16 counts in fours, and
# 80,000, which float16 has not.
@pytest.mark.parametrize("options", _LARGE_OPTIONS, ids=str)
@pytest.mark.parametrize("shared", [None, {1: 9, 2: 10}], ids=["apart", "shared"])
@pytest.mark.parametrize(("dtype", "offset"), [(torch.bfloat16, 10.0), (torch.float16, 100.0)])
def test_large_scores_keep_their_differences_in_half_precision(
    dtype: torch.dtype,
    offset: float,
    shared: dict[int, int] | None,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    problem = _problem(dtype=dtype, **options)
    difference = _difference(problem, [61, 70, 60], [1, 1, 5], shared=shared, offset=offset)
    assert difference < (0.03 if problem.value_dim is None else 0.01 * offset)


_SHARED_OPTIONS: list[dict[str, Any]] = [
    {},
    {"soft_cap": 0.7},
    {"num_kv_heads": 1},
    {"has_sinks": True},
    {"num_kv_heads": 1, "value_dim": 6},
]


@pytest.mark.parametrize("options", _SHARED_OPTIONS, ids=str)
@pytest.mark.parametrize("num_tokens", [[1, 1, 1, 1, 1], [1, 5, 20, 1, 9]], ids=["one", "many"])
def test_shared_prefix_is_read_once_and_equals_the_definition(
    options: dict[str, Any], num_tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    lengths = [61, 70, 60, 38, 41]
    difference = _difference(_problem(**options), lengths, num_tokens, shared={1: 9, 2: 10, 4: 8})
    assert difference < 2e-6


@pytest.mark.parametrize("options", [{"window": 6}, {"alibi_slopes": _SLOPES}], ids=str)
def test_windows_and_slopes_do_not_share(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    rows = _rows(_problem(**options), [60, 60])
    rows.share_prefix({0: 14, 1: 14})
    batch, _ = rows.batch({0: 1, 1: 1})
    assert TorchAttention.build(_problem(**options)).plan(batch, 0).shared == ()


def test_blocks_behind_a_rows_end_are_not_read_though_another_row_is_longer() -> None:
    problem = _problem()
    rows = _rows(problem, [40, 40])  # row 0 has 10 blocks, of which it has come to the first two
    batch, _ = rows.batch({0: 7, 1: 39})
    rows.kv_caches[0].fill_(1.0)
    batch, _ = rows.batch({0: 1, 1: 1})
    rows.kv_caches[0][:, batch.groups[0].block_table[0, 2:].long()] = torch.nan
    rows.kv_caches[0][:, 0] = 0.0
    backend = TorchAttention.build(problem)
    plan = backend.plan(batch, 0)
    assert len(plan.buckets) == 1
    attended = backend.forward(torch.ones(2, 4, _HEAD_DIM), rows.kv_caches[0], plan)
    assert torch.equal(attended, torch.ones(2, 4, _HEAD_DIM))


def test_prompt_longer_than_a_piece() -> None:
    assert _difference(_problem(), [700, 40], [650, 1], block_size=16) < 2e-6


@pytest.mark.parametrize("options", [{}, {"soft_cap": 0.7}], ids=["plain", "soft-cap"])
def test_masks_and_scores_too_large_to_keep_change_nothing(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_MAX_KEPT_SCORES", 0)
    monkeypatch.setattr("quire.attention.attend._MAX_SCORES", 64)
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    shared = {1: 3, 2: 3}
    assert _difference(_problem(**options), [30, 29, 60], [1, 9, 17], shared=shared) < 2e-6
    assert _difference(_problem(**options), [30, 29, 60], [1, 9, 17]) < 2e-6


def test_prompts_of_all_lengths_have_few_shapes() -> None:
    problem = _problem()
    backend, shapes = TorchAttention.build(problem), set()
    for length in range(1, 129):
        batch, _ = _rows(problem, [length], block_size=128).batch({0: length})
        shapes |= {one.bucket.query_heads.shape for one in backend.plan(batch, 0).buckets}
    assert len(shapes) == 16 + 3 * 8


def test_one_block_per_bucket_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "_MAX_GATHERED_BYTES", 1)
    assert _difference(_problem(), [30, 29, 60], [1, 9, 17]) < 2e-6


def test_uneven_heads_and_other_devices_are_refused_with_reasons() -> None:
    reasons = TorchAttention.why_not(_problem(num_heads=4, num_kv_heads=3, device="cuda"))
    assert len(reasons) == 2
    assert "cuda" in reasons[0]
    assert "4 heads" in reasons[1]
    assert TorchAttention.why_not(_problem()) == []
