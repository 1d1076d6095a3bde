"""StepLayout: rows that compute one token come first, and every row's tokens are found again."""

from __future__ import annotations

import numpy as np

from quire.step import StepPlan
from quire.worker.step_layout import StepLayout


def layout_of(num_scheduled: list[int]) -> StepLayout:
    count = len(num_scheduled)
    return StepLayout.of(
        StepPlan(
            step_id=0,
            rows=np.arange(count, dtype=np.int32),
            num_computed=np.zeros(count, dtype=np.int32),
            num_scheduled=np.asarray(num_scheduled, dtype=np.int32),
            samples=np.ones(count, dtype=np.bool_),
            epochs=np.zeros(count, dtype=np.int32),
        )
    )


def test_rows_of_one_token_come_first_and_keep_their_order() -> None:
    layout = layout_of([5, 1, 3, 1])
    assert layout.order.tolist() == [1, 3, 0, 2]
    assert layout.num_decode_rows == 2
    assert layout.query_start.tolist() == [0, 1, 2, 7, 10]


def test_first_and_last_tokens_are_in_the_order_of_the_plan() -> None:
    layout = layout_of([5, 1, 3, 1])
    assert layout.first_token.tolist() == [2, 0, 7, 1]
    assert layout.last_token.tolist() == [6, 0, 9, 1]


def test_a_plan_of_decodes_keeps_its_order() -> None:
    layout = layout_of([1, 1, 1])
    assert layout.order.tolist() == layout.last_token.tolist() == [0, 1, 2]
    assert layout.num_decode_rows == 3
