"""Draft: what running rows want, under the step's budget, and which will soon need a block."""

from __future__ import annotations

import numpy as np
import pytest

from quire.config import SchedulerConfig
from quire.kv_cache.manager import BlockTable
from quire.request import EngineRequest, RowSampling
from quire.scheduler.completion import Completion
from quire.scheduler.draft import Draft, step_budget
from quire.scheduler.row_table import RowTable


@pytest.fixture
def table() -> RowTable:
    """Four rows of 10 known tokens, of which 9, 9, 4 and 0 are computed; each ends at 20."""
    table = RowTable(4, 64)
    for index, num_computed in enumerate((9, 9, 4, 0)):
        request = EngineRequest(
            request_id=str(index),
            prompt_token_ids=[1] * 10,
            sampling=RowSampling(),
            max_tokens=10,
        )
        completion = Completion.first_of(request, index, BlockTable(groups=([],)))
        table.join(completion, num_computed=num_computed, capacity=0, max_pending=1)
    return table


def wanted(table: RowTable, **limits: int) -> Draft:
    config = SchedulerConfig(**limits)  # type: ignore[arg-type]
    return Draft.wanted(table, np.arange(4), config, num_waiting=0)


def test_each_row_catches_up_and_the_first_ones_take_the_budget(table: RowTable) -> None:
    assert wanted(table).counts.tolist() == [1, 1, 6, 10]
    assert wanted(table, max_num_batched_tokens=5).counts.tolist() == [1, 1, 3, 0]
    assert wanted(table, long_prefill_token_threshold=4).counts.tolist() == [1, 1, 4, 4]


def test_while_rows_decode_a_step_that_would_not_be_full_is_short(table: RowTable) -> None:
    limits = SchedulerConfig(max_num_batched_tokens=100, short_step_tokens=12)
    rows = np.arange(4)
    assert Draft.wanted(table, rows, limits, num_waiting=0).counts.tolist() == [1, 1, 6, 4]
    assert Draft.wanted(table, rows, limits, num_waiting=81).budget == 12
    assert Draft.wanted(table, rows, limits, num_waiting=82).budget == 100
    none_decodes = Draft.wanted(table, rows[2:], limits, num_waiting=0)
    assert none_decodes.counts.tolist() == [6, 10]


@pytest.mark.parametrize("full", [12, 100])
def test_rows_that_decode_have_their_token_wherever_they_stand(table: RowTable, full: int) -> None:
    limits = SchedulerConfig(max_num_batched_tokens=full, short_step_tokens=12)
    last_first = np.array([3, 2, 1, 0])  # as a queue by priority may have them
    draft = Draft.wanted(table, last_first, limits, num_waiting=0)
    assert (draft.budget, draft.counts.tolist()) == (12, [10, 0, 1, 1])
    assert draft.counts.dtype == np.int32  # as the plan has them


def test_rows_that_wait_for_their_results_decode_as_well(table: RowTable) -> None:
    limits = SchedulerConfig(max_num_batched_tokens=100, short_step_tokens=12)
    table.num_tokens[:2] += 1
    table.num_computed[:2] += 1
    draft = Draft.wanted(table, np.array([3, 2, 1, 0]), limits, num_waiting=0)
    assert (draft.budget, draft.counts.tolist()) == (12, [10, 2, 0, 0])


def test_prompts_cut_down_to_a_token_do_not_come_before_rows_that_decode(table: RowTable) -> None:
    limits = SchedulerConfig(
        max_num_batched_tokens=100, short_step_tokens=2, long_prefill_token_threshold=1
    )
    table.num_computed[1] = 8
    draft = Draft.wanted(table, np.array([3, 2, 1, 0]), limits, num_waiting=0)
    assert draft.counts.tolist() == [1, 0, 0, 1]


def test_a_short_step_has_as_many_tokens_of_prompts_as_of_rows_that_decode() -> None:
    limits = SchedulerConfig(max_num_batched_tokens=100, short_step_tokens=12)
    budgets = [step_budget(limits, 90, num_decoding=count) for count in (1, 6, 7, 40, 60)]
    assert budgets == [12, 12, 14, 80, 100]


def test_rows_that_wait_for_results_or_are_at_their_end_compute_nothing(table: RowTable) -> None:
    table.num_tokens[0] += 1  # in flight, and one is all it may have
    table.num_tokens[1] = table.num_confirmed[1] = 20
    draft = wanted(table)
    assert draft.counts.tolist() == [0, 0, 6, 10]
    draft.drop_idle()
    assert draft.rows.tolist() == [2, 3]


def test_rows_that_joined_stand_behind_those_that_remain(table: RowTable) -> None:
    draft = wanted(table)
    draft.cut(1)
    draft.add(table, [3, 2], [7, 6])
    assert draft.rows.tolist() == [0, 3, 2]
    assert draft.num_computed.tolist() == [9, 0, 4]
    assert draft.counts.tolist() == [1, 7, 6]


def test_rows_near_the_end_of_their_blocks_are_told_before_they_are_there(table: RowTable) -> None:
    table.capacity[:] = 12
    draft = wanted(table)
    assert draft.soon_full(table, 2).tolist() == []
    assert draft.soon_full(table, 3).tolist() == [0, 1]  # the others still compute their prompts
    table.tail_may_be_shared[0] = True
    table.max_len[1] = 13  # its last token is never computed
    assert draft.soon_full(table, 3).tolist() == []
    table.tail_may_be_shared[0] = False
    table.max_len[1] = 14
    assert draft.soon_full(table, 3).tolist() == [0, 1]
    table.capacity[0] = 9  # not soon but now
    assert draft.soon_full(table, 3).tolist() == [1]
