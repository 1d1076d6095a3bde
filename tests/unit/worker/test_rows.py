"""Rows: what a plan changes is on the device afterwards, and nothing else moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quire.request import RowSampling
from quire.step import JoinedRow, RowToken, StepPlan, TableEntries
from quire.worker.rows import NO_PROMPT_LOGPROBS, Rows


@pytest.fixture
def rows() -> Rows:
    return Rows(
        max_rows=3, max_model_len=10, num_groups=2, block_size=4, device=torch.device("cpu")
    )


def changes(
    *,
    left: list[int] | None = None,
    joined: list[JoinedRow] | None = None,
    blocks: list[TableEntries] | None = None,
    tokens: list[RowToken] | None = None,
) -> StepPlan:
    none = np.zeros(0, dtype=np.int32)
    return StepPlan(
        step_id=0,
        left=left or [],
        joined=joined or [],
        blocks=blocks or [],
        tokens=tokens or [],
        rows=none,
        num_computed=none,
        num_scheduled=none,
        samples=none.astype(np.bool_),
        epochs=none,
    )


def joining(
    row: int, token_ids: list[int], *blocks: list[int], num_prompt_logprobs: int | None = None
) -> JoinedRow:
    return JoinedRow(
        row=row,
        token_ids=np.asarray(token_ids, dtype=np.int32),
        num_prompt_tokens=len(token_ids),
        block_ids=blocks,
        sampling=RowSampling(num_prompt_logprobs=num_prompt_logprobs),
    )


def test_joined_rows_have_their_tokens_and_blocks_in_every_group(rows: Rows) -> None:
    rows.apply(
        changes(joined=[joining(0, [5, 6, 7], [1], [2]), joining(2, [8] * 10, [3, 4, 5], [6, 7])])
    )
    assert rows.token_ids[0].tolist() == [5, 6, 7] + [0] * 8
    assert rows.token_ids[1].tolist() == [0] * 11
    assert rows.token_ids[2].tolist() == [8] * 10 + [0]
    assert rows.block_tables[0].tolist() == [[1, 0, 0, 0], [0] * 4, [3, 4, 5, 0], [0] * 4]
    assert rows.block_tables[1].tolist() == [[2, 0, 0, 0], [0] * 4, [6, 7, 0, 0], [0] * 4]
    assert rows.num_prompt_tokens.tolist() == [3, 0, 10]


def test_a_row_that_left_leaves_no_block_to_its_next_owner(rows: Rows) -> None:
    rows.apply(changes(joined=[joining(1, [5] * 10, [1, 2, 3], [4, 5, 6], num_prompt_logprobs=0)]))
    rows.apply(changes(left=[1], joined=[joining(1, [9], [7], [8])]))
    assert rows.block_tables[:, 1].tolist() == [[7, 0, 0, 0], [8, 0, 0, 0]]
    assert rows.token_ids[1, 0] == 9
    assert rows.num_prompt_logprobs[1] == NO_PROMPT_LOGPROBS


def test_what_a_row_grew_by_is_gone_for_all_later_owners(rows: Rows) -> None:
    rows.apply(changes(joined=[joining(1, [5], [1], [2])]))
    rows.apply(changes(blocks=[TableEntries.of_row(1, 1, 1, [3, 4, 5])]))
    rows.apply(changes(left=[1], joined=[joining(1, [9] * 5, [6, 7], [8, 9])]))
    assert rows.block_tables[:, 1].tolist() == [[6, 7, 0, 0], [8, 9, 0, 0]]
    rows.apply(changes(left=[1]))
    rows.apply(changes(joined=[joining(1, [9], [1], [2])]))
    assert rows.block_tables[:, 1].tolist() == [[1, 0, 0, 0], [2, 0, 0, 0]]


def test_changed_blocks_land_in_their_row_and_group_only(rows: Rows) -> None:
    rows.apply(changes(joined=[joining(0, [1], [1], [2]), joining(1, [1], [3], [4])]))
    rows.apply(
        changes(
            blocks=[
                TableEntries.of_row(0, 1, 1, [7, 8]),
                TableEntries.of_row(1, 0, 0, [9]),
            ]
        )
    )
    assert rows.block_tables[0].tolist() == [[1, 0, 0, 0], [9, 0, 0, 0], [0] * 4, [0] * 4]
    assert rows.block_tables[1].tolist() == [[2, 7, 8, 0], [4, 0, 0, 0], [0] * 4, [0] * 4]


def test_a_token_that_the_host_chose_replaces_the_one_a_join_brought(rows: Rows) -> None:
    rows.apply(
        changes(
            joined=[joining(2, [5, 6], [1], [2])],
            tokens=[RowToken(row=2, position=1, token_id=42)],
        )
    )
    assert rows.token_ids[2, :3].tolist() == [5, 42, 0]


def test_a_sampled_token_stands_behind_the_tokens_of_its_row(rows: Rows) -> None:
    rows.append(torch.tensor([2, 0]), torch.tensor([10, 0]), torch.tensor([7, 9]))
    assert rows.token_ids[2].tolist() == [0] * 10 + [7]
    assert rows.token_ids[0].tolist() == [9] + [0] * 10
    assert rows.token_ids[1].tolist() == [0] * 11


def test_a_plan_that_writes_past_a_row_is_refused(rows: Rows) -> None:
    with pytest.raises(AssertionError):
        rows.apply(changes(blocks=[TableEntries.of_row(0, 0, 3, [1, 2])]))
    with pytest.raises(AssertionError):
        rows.apply(changes(tokens=[RowToken(row=0, position=11, token_id=1)]))
