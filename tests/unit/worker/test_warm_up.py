"""Warm-up plans: ordinary steps that touch the null block only and end with no row taken."""

from __future__ import annotations

import pytest

from quire.kv_layout import NULL_BLOCK
from quire.worker.warm_up import traffic_sizes, warm_up_plans


@pytest.mark.parametrize("prompt_len", [1, 8, 32])
def test_rows_join_prefill_decode_and_leave(prompt_len: int) -> None:
    plans = list(warm_up_plans(num_rows=2, prompt_len=prompt_len, block_size=8, num_groups=2))
    assert [plan.num_tokens for plan in plans] == [2 * prompt_len, 2, 0]
    assert sorted(joined.row for joined in plans[0].joined) == sorted(plans[-1].left) == [0, 1]
    last_position = prompt_len  # the decode's
    for joined in plans[0].joined:
        assert len(joined.block_ids) == 2
        for entries in joined.block_ids:
            assert set(entries) == {NULL_BLOCK}
            assert len(entries) * 8 > last_position


def test_traffic_is_warmed_up_for_on_a_gpu_only_and_to_the_largest_step() -> None:
    assert traffic_sizes("cpu", 8192) == []
    assert traffic_sizes("cuda", 600) == [384, 512]
    assert traffic_sizes("cuda", 8192)[-1] == 8192
