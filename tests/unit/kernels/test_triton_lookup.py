"""The lookup of a step's tokens against its reference twin."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from quire.kernels.reference import lookup as reference
from quire.kernels.reference.lookup import RowState, StepTokens
from quire.kernels.triton import lookup
from tests.unit.kernels.twins import DEVICE

MAX_ROWS = 40
LONGEST = 70


@pytest.fixture(params=[1, 3])
def state(request: pytest.FixtureRequest) -> RowState:
    torch.manual_seed(0)
    shape = (request.param, MAX_ROWS, -(-LONGEST // 16) + 1)
    return RowState(
        token_ids=torch.randint(1000, (MAX_ROWS, LONGEST + 1), dtype=torch.int32, device=DEVICE),
        block_tables=torch.randint(500, shape, dtype=torch.int32, device=DEVICE),
        block_size=16,
    )


def assert_equal(found: StepTokens, wanted: StepTokens) -> None:
    for field in fields(StepTokens):
        mine, theirs = getattr(found, field.name), getattr(wanted, field.name)
        assert mine.dtype == theirs.dtype, field.name
        assert torch.equal(mine, theirs), field.name


@pytest.mark.parametrize("num_rows", [1, 5, 33])
def test_decode_tokens(num_rows: int, state: RowState) -> None:
    rows = torch.randperm(MAX_ROWS, device=DEVICE)[:num_rows]
    lengths = torch.randint(1, LONGEST + 1, (num_rows,), device=DEVICE)
    assert_equal(
        lookup.decode_tokens(state, rows, lengths), reference.decode_tokens(state, rows, lengths)
    )


@pytest.mark.parametrize("query_lens", [[1], [3, 1, 0, 0, 12], [1] * 30 + [0, 0, 40], [50, 90]])
def test_mixed_tokens(query_lens: list[int], state: RowState) -> None:
    """The last row may have more tokens than it has places for."""
    lens = torch.tensor(query_lens, device=DEVICE)
    query_start = torch.nn.functional.pad(lens.cumsum(0), (1, 0)).to(torch.int32)
    rows = torch.randperm(MAX_ROWS, device=DEVICE)[: len(lens)]
    computed = torch.randint(0, 15, (len(lens),), device=DEVICE)
    arguments = (
        state,
        rows,
        computed - query_start[:-1],
        query_start,
        (computed + lens).to(torch.int32),
        int(lens.sum()),
    )
    assert_equal(lookup.mixed_tokens(*arguments), reference.mixed_tokens(*arguments))
