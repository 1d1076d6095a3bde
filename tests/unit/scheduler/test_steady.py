"""SteadyRows: the plans made ahead are those that planning row by row gives, and end in time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from quire.request import EngineRequest, RowSampling, Watch
from quire.scheduler.row_table import Index, RowTable
from quire.scheduler.steady import LookAhead, SteadyRows
from quire.step import StepPlan
from tests.unit.scheduler.engines import build, drain, request


class Counted:
    """Counts the plans of `SteadyRows`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.num_plans = 0
        next_plan = SteadyRows.next_plan

        def counted(steady: SteadyRows, *args: Any) -> StepPlan:
            self.num_plans += 1
            return next_plan(steady, *args)

        monkeypatch.setattr(SteadyRows, "next_plan", counted)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def requests() -> list[EngineRequest]:
    return [
        request("a", [1, 2, 3], 30),
        request("b", [4] * 9, 17, sampling=RowSampling(stop_token_ids=(3, 5))),
        request("c", [2, 9], 25, n=2, sampling=RowSampling(temperature=1.0)),
        request("d", [6, 6, 6, 1], 40, watch=Watch.AT_END),
    ]


def tokens_of(late: list[EngineRequest], **limits: Any) -> dict[tuple[str, int], list[int]]:
    """Requests, some of which come after a while; one is aborted then."""
    core, _ = build(block_size=8, **limits)
    for one in requests():
        core.add_request(one)
    found: dict[tuple[str, int], list[int]] = {}
    for _ in range(9):
        for delta in core.step():
            found.setdefault((delta.request_id, delta.index), []).extend(delta.new_token_ids)
        core.check_integrity()
    core.abort(["a"])
    for one in late:
        core.add_request(one)
    for key, tokens in drain(core).items():
        found.setdefault(key, []).extend(tokens)
    return found


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("num_blocks", [200, 9])
def test_tokens_are_those_of_plans_made_one_by_one(
    depth: int, num_blocks: int, counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = [request("e", [8, 7], 12), request("f", [1] * 30, 20)]
    limits = {"depth": depth, "num_blocks": num_blocks, "max_num_seqs": 5}
    found = tokens_of(late, **limits)
    assert counted.num_plans > 10
    monkeypatch.setattr(LookAhead, "can_plan", lambda *args: False)
    wanted = tokens_of(late, **limits)
    del found["a", 0], wanted["a", 0]  # how far it came is a matter of the depth
    assert found == wanted


def test_rows_that_run_alone_are_planned_ahead_until_they_need_a_block(counted: Counted) -> None:
    core, _ = build(block_size=16, max_num_seqs=2)
    core.add_request(request("a", [1] * 4, 40))
    core.add_request(request("b", [2] * 6, 40))
    for _ in range(8):
        core.step()
    assert counted.num_plans == 5  # the prompts, two to see that they decode alone
    drain(core)
    assert counted.num_plans > 25


def test_rows_beside_a_prompt_that_blocks_lack_for_are_planned_ahead_in_short_steps_too(
    counted: Counted,
) -> None:
    num_plans = []
    for short in (None, 8):
        limits = {"max_num_batched_tokens": 64, "short_step_tokens": short}
        core, _ = build(num_blocks=8, block_size=16, prefix_caching=False, **limits)
        for name in "abc":
            core.add_request(request(name, [1] * 4, 28))
        for _ in range(16):
            core.step()
        core.add_request(request("long", [2] * 40, 4))
        before = counted.num_plans
        while core.stats().num_running == 3:
            core.step()
        num_plans.append(counted.num_plans - before)
        drain(core)
    assert num_plans[0] == num_plans[1] >= 8


def test_a_request_that_waits_for_a_row_that_is_free_is_admitted_at_once() -> None:
    core, device = build(block_size=16, max_num_seqs=3)
    core.add_request(request("a", [1] * 4, 40))
    for _ in range(6):
        core.step()
    core.add_request(request("b", [2] * 6, 4))
    core.step()
    assert device.max_batch == 2


def test_a_plan_of_some_of_the_rows_ends_what_was_known_of_all() -> None:
    table = RowTable(2, 64)
    table.max_len[:] = table.capacity[:] = 60
    table.max_pending[:] = 3
    table.num_computed[:], table.num_tokens[:] = 4, 5
    look_ahead, rows = LookAhead(table), np.arange(2)

    def follow(count: int) -> None:
        some = rows if count == len(rows) else rows[:count]
        look_ahead.follow(decode_step(table, some), count == len(rows), some)

    follow(2)
    follow(2)
    assert look_ahead.can_plan(rows, 0)
    follow(1)
    assert not look_ahead.can_plan(rows, 0)
    follow(2)
    follow(2)
    assert look_ahead.can_plan(rows, 0)


def decode_step(table: RowTable, rows: Index) -> StepPlan:
    """Of these rows, as the scheduler plans them."""
    plan = StepPlan(
        step_id=1,
        rows=rows.astype(np.int32),
        num_computed=table.num_computed[rows],
        num_scheduled=np.ones(len(rows), dtype=np.int32),
        samples=np.ones(len(rows), dtype=np.bool_),
        epochs=table.epoch[rows],
    )
    table.num_computed[rows] += 1
    table.num_tokens[rows] += 1
    return plan
