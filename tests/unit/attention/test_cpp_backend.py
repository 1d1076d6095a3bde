"""The C++ backend agrees with the definition of paged attention, whatever the mix of rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from quire.attention import cpp_backend
from quire.attention.cpp_backend import CppAttention
from quire.attention.selection import select_backends
from quire.kernels.cpp import library
from tests.fakes.compilers import needs_compiler
from tests.fakes.paged_attention import (
    HEAD_DIM,
    SHARED_OPTIONS,
    SLOPES,
    attention_problem,
    difference_from_definition,
    fake_rows,
)

pytestmark = needs_compiler

_difference = partial(difference_from_definition, CppAttention)


# The products of queries and keys are about 8 * offset^2: 800, where bfloat16 counts in fours, and
# 80,000, which float16 has not.
@pytest.mark.parametrize("options", [{}, {"soft_cap": 900.0}, {"has_sinks": True}], ids=str)
@pytest.mark.parametrize("shared", [None, {1: 9, 2: 10}], ids=["apart", "shared"])
@pytest.mark.parametrize(("dtype", "offset"), [(torch.bfloat16, 10.0), (torch.float16, 100.0)])
def test_large_scores_keep_their_differences_in_half_precision(
    dtype: torch.dtype,
    offset: float,
    shared: dict[int, int] | None,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpp_backend, "_MIN_SAVED_TOKENS", 1)
    problem = attention_problem(dtype=dtype, **options)
    assert _difference(problem, [61, 70, 60], [1, 1, 1], shared=shared, offset=offset) < 0.03


@pytest.mark.parametrize("options", [*SHARED_OPTIONS, {"alibi_slopes": SLOPES}], ids=str)
@pytest.mark.parametrize("num_tokens", [[1, 1, 1, 1, 1], [1, 5, 1, 1, 9]], ids=["one", "many"])
def test_shared_prefix_is_read_once_and_equals_the_definition(
    options: dict[str, Any], num_tokens: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpp_backend, "_MIN_SAVED_TOKENS", 1)
    problem = attention_problem(**options)
    shared = {1: 9, 2: 10, 4: 8}
    assert _difference(problem, [61, 70, 60, 38, 41], num_tokens, shared=shared) < 2e-6


@pytest.mark.usefixtures("one_and_three_threads")
def test_many_rows_share_a_long_prefix() -> None:
    shared = dict.fromkeys(range(1, 40), 128)
    lengths = [600, *range(520, 559)]
    assert _difference(attention_problem(), lengths, [1] * 40, shared=shared) < 2e-6


def test_short_prefixes_are_not_worth_a_merge() -> None:
    assert cpp_backend._MIN_SAVED_TOKENS > 40
    rows = fake_rows(attention_problem(), [60, 60])
    rows.share_prefix({0: 10, 1: 10})
    batch, _ = rows.batch({0: 1, 1: 1})
    assert CppAttention.build(attention_problem()).plan(batch, 0).prefixes is None


def test_rows_with_windows_do_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpp_backend, "_MIN_SAVED_TOKENS", 1)
    problem = attention_problem(window=6)
    rows = fake_rows(problem, [60, 60])
    rows.share_prefix({0: 14, 1: 14})
    batch, _ = rows.batch({0: 1, 1: 1})
    assert CppAttention.build(problem).plan(batch, 0).prefixes is None


def test_slots_that_no_query_sees_are_not_read() -> None:
    problem = attention_problem()
    rows = fake_rows(problem, [40, 40])  # 10 blocks each; row 0 has come to the first two
    batch, _ = rows.batch({0: 7, 1: 39})
    rows.kv_caches[0].fill_(1.0)
    batch, _ = rows.batch({0: 1, 1: 1})
    rows.kv_caches[0][:, batch.groups[0].block_table[0, 2:].long()] = torch.nan
    rows.kv_caches[0][:, 0] = torch.nan
    backend = CppAttention.build(problem)
    plan = backend.plan(batch, 0)
    attended = backend.forward(torch.ones(2, 4, HEAD_DIM), rows.kv_caches[0], plan)
    torch.testing.assert_close(attended, torch.ones(2, 4, HEAD_DIM))


def test_machines_without_the_kernels_are_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CppAttention.why_not(attention_problem()) == []
    reasons = CppAttention.why_not(attention_problem(num_kv_heads=3, device="cuda"))
    assert len(reasons) == 2
    monkeypatch.setattr(library, "why_not", lambda: ["there is no C++ compiler"])
    assert str(select_backends("cpp,torch", [attention_problem()])) == "torch"
    with pytest.raises(ValueError, match="'cpp' cannot serve this model: there is no C"):
        select_backends("cpp", [attention_problem()])
