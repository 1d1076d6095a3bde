"""The torch backend agrees with the definition of paged attention, whatever the mix of rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

import quire.attention.torch_backend as torch_backend
from quire.attention.torch_backend import TorchAttention
from tests.fakes.paged_attention import (
    HEAD_DIM,
    SHARED_OPTIONS,
    SLOPES,
    attention_problem,
    difference_from_definition,
    fake_rows,
)

_difference = partial(difference_from_definition, TorchAttention)


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
    problem = attention_problem(dtype=dtype, **options)
    difference = _difference(problem, [61, 70, 60], [1, 1, 5], shared=shared, offset=offset)
    assert difference < (0.03 if problem.value_dim is None else 0.01 * offset)


@pytest.mark.parametrize("options", SHARED_OPTIONS, ids=str)
@pytest.mark.parametrize("num_tokens", [[1, 1, 1, 1, 1], [1, 5, 20, 1, 9]], ids=["one", "many"])
def test_shared_prefix_is_read_once_and_equals_the_definition(
    options: dict[str, Any], num_tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    lengths = [61, 70, 60, 38, 41]
    difference = _difference(
        attention_problem(**options), lengths, num_tokens, shared={1: 9, 2: 10, 4: 8}
    )
    assert difference < 2e-6


@pytest.mark.parametrize("options", [{"window": 6}, {"alibi_slopes": SLOPES}], ids=str)
def test_windows_and_slopes_do_not_share(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    rows = fake_rows(attention_problem(**options), [60, 60])
    rows.share_prefix({0: 14, 1: 14})
    batch, _ = rows.batch({0: 1, 1: 1})
    assert TorchAttention.build(attention_problem(**options)).plan(batch, 0).shared == ()


def test_blocks_behind_a_rows_end_are_not_read_though_another_row_is_longer() -> None:
    problem = attention_problem()
    rows = fake_rows(
        problem, [40, 40]
    )  # row 0 has 10 blocks, of which it has come to the first two
    batch, _ = rows.batch({0: 7, 1: 39})
    rows.kv_caches[0].fill_(1.0)
    batch, _ = rows.batch({0: 1, 1: 1})
    rows.kv_caches[0][:, batch.groups[0].block_table[0, 2:].long()] = torch.nan
    rows.kv_caches[0][:, 0] = 0.0
    backend = TorchAttention.build(problem)
    plan = backend.plan(batch, 0)
    assert len(plan.buckets) == 1
    attended = backend.forward(torch.ones(2, 4, HEAD_DIM), rows.kv_caches[0], plan)
    assert torch.equal(attended, torch.ones(2, 4, HEAD_DIM))


def test_prompt_longer_than_a_piece() -> None:
    assert _difference(attention_problem(), [700, 40], [650, 1], block_size=16) < 2e-6


@pytest.mark.parametrize("options", [{}, {"soft_cap": 0.7}], ids=["plain", "soft-cap"])
def test_masks_and_scores_too_large_to_keep_change_nothing(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "_MAX_KEPT_SCORES", 0)
    monkeypatch.setattr("quire.attention.attend._MAX_SCORES", 64)
    monkeypatch.setattr(torch_backend, "_PREFIX_COST", 0)
    shared = {1: 3, 2: 3}
    assert _difference(attention_problem(**options), [30, 29, 60], [1, 9, 17], shared=shared) < 2e-6
    assert _difference(attention_problem(**options), [30, 29, 60], [1, 9, 17]) < 2e-6


def test_prompts_of_all_lengths_have_few_shapes() -> None:
    problem = attention_problem()
    backend, shapes = TorchAttention.build(problem), set()
    for length in range(1, 129):
        batch, _ = fake_rows(problem, [length], block_size=128).batch({0: length})
        shapes |= {one.bucket.query_heads.shape for one in backend.plan(batch, 0).buckets}
    assert len(shapes) == 16 + 3 * 8


def test_one_block_per_bucket_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "_MAX_GATHERED_BYTES", 1)
    assert _difference(attention_problem(), [30, 29, 60], [1, 9, 17]) < 2e-6


def test_uneven_heads_and_other_devices_are_refused_with_reasons() -> None:
    reasons = TorchAttention.why_not(attention_problem(num_heads=4, num_kv_heads=3, device="cuda"))
    assert len(reasons) == 2
    assert "cuda" in reasons[0]
    assert "4 heads" in reasons[1]
    assert TorchAttention.why_not(attention_problem()) == []
