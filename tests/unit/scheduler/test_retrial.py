"""A step that fails ends the requests that break it, and no other."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.request import FinishReason, Watch
from quire.step import StepPlan
from tests.fakes.device import FakeDevice, FakeResult, next_token
from tests.unit.scheduler.engines import (
    build,
    expected,
    last_deltas,
    request,
    run,
)


@pytest.mark.parametrize("depth", [1, 2])
def test_request_that_breaks_a_step_ends_alone(depth: int) -> None:
    core, _ = build(depth=depth, device=FakeDevice(4, fails_on=999))
    good = [request(f"good{i}", [i, i + 1, i + 2], 12) for i in range(3)]
    for each in [good[0], request("bad", [5, 999, 6], 4), *good[1:]]:
        core.add_request(each)
    last = last_deltas(core)
    assert last["bad"].finish_reason is FinishReason.ERROR
    assert "cannot compute" in str(last["bad"].error) and not last["bad"].is_refusal
    assert [last[each.request_id].finish_reason for each in good] == [FinishReason.LENGTH] * 3


def test_tokens_stay_right_after_a_failed_step() -> None:
    core, _ = build(device=FakeDevice(4, fails_on=999), max_num_batched_tokens=64)
    good = [request(f"good{i}", [i] * 10, 12, watch=Watch.AT_END) for i in range(3)]
    answers = run(core, [*good, request("bad", [0] * 8 + [999], 4)])
    for each in good:
        assert answers[(each.request_id, 0)] == expected(each)[(each.request_id, 0)]


POISON = 13


def poisoned_after(prompt: list[int]) -> int:
    """The step whose sampled token breaks the next one; 0 if none of the first 8 does."""
    tokens = list(prompt)
    for step in range(1, 9):
        tokens.append(next_token(tokens, 0))
        if tokens[-1] == POISON:
            return step
    return 0


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("distance", [1, 2])
def test_only_rows_that_break_a_step_end_with_an_error(depth: int, distance: int) -> None:
    """The second bad row breaks a step while suspects are being tried one by one."""
    prompts: dict[int, list[list[int]]] = {}
    for first in range(50):
        for second in range(50):
            if POISON not in (first, second):
                prompts.setdefault(poisoned_after([first, second]), []).append([first, second])
    core, _ = build(depth=depth, device=FakeDevice(4, fails_on=POISON), max_num_batched_tokens=32)
    core.add_request(request("bad 1", prompts[1][0], 8))
    core.add_request(request("bad 2", prompts[1 + distance][0], 8))
    for index in range(3):
        core.add_request(request(f"good {index}", prompts[0][index], 8))
    ends = {}
    while core.has_unfinished:
        ends |= {delta.request_id: delta.finish_reason for delta in core.step()}
        core.check_integrity()
    failed = {name for name, reason in ends.items() if reason is FinishReason.ERROR}
    assert failed == {"bad 1", "bad 2"}


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_row_that_ends_in_its_retrial_takes_no_other_ones_turn(depth: int) -> None:
    class FailsOnce(FakeDevice):
        num_steps = 0

        def submit(self, plan: StepPlan) -> FakeResult:
            self.num_steps += 1
            done = super().submit(plan)
            if self.num_steps == 1:
                self.unread.clear()
                raise RuntimeError("once")
            return done

    device = FailsOnce(4)
    core, _ = build(depth=depth, device=device)
    requests = [request(name, [1, 2, i], i + 1) for i, name in enumerate("abc")]
    assert run(core, requests) == {
        key: tokens for each in requests for key, tokens in expected(each).items()
    }
    assert device.num_steps < 30


class Unsteady(FakeDevice):
    """Some steps fail, for no reason that lies in their rows."""

    failures: random.Random
    percentage: int

    def submit(self, plan: StepPlan) -> FakeResult:
        done = super().submit(plan)
        if self.failures.randrange(100) < self.percentage:
            self.unread.clear()
            self.error = None
            raise RuntimeError("out of luck")
        return done


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(
        st.tuples(st.integers(1, 14), st.integers(1, 5), st.integers(1, 3)), min_size=1, max_size=8
    ),
    seed=st.integers(0, 10**6),
    percentage=st.sampled_from([0, 5, 30]),
    depth=st.integers(1, 3),
    num_blocks=st.sampled_from([18, 40, 200]),
    has_poison=st.booleans(),
)
def test_every_request_ends_however_steps_fail(
    lengths: list[tuple[int, int, int]],
    seed: int,
    percentage: int,
    depth: int,
    num_blocks: int,
    has_poison: bool,
) -> None:
    draw = random.Random(seed)
    device = Unsteady(4, fails_on=POISON if has_poison else None)
    device.failures, device.percentage = draw, percentage
    core, _ = build(num_blocks=num_blocks, depth=depth, device=device)
    requests = [
        request(str(i), [draw.randrange(12) for _ in range(length)], max_tokens, n=n)
        for i, (length, max_tokens, n) in enumerate(lengths)
    ]
    for each in requests:
        core.add_request(each)
    tokens: dict[tuple[str, int], list[int]] = {}
    ends: dict[tuple[str, int], FinishReason] = {}
    for _ in range(3000):
        for delta in core.step():
            key = delta.request_id, delta.index
            assert key not in ends, "news of a completion that has ended"
            tokens.setdefault(key, []).extend(delta.new_token_ids)
            if delta.finish_reason is not None:
                ends[key] = delta.finish_reason
        core.check_integrity()
        if not core.has_unfinished:
            break
    wanted = {key: answer for each in requests for key, answer in expected(each).items()}
    assert set(ends) == set(wanted)
    for key, reason in ends.items():
        whole = wanted[key]
        assert tokens[key] == whole[: len(tokens[key])]
        if reason is not FinishReason.ERROR:
            assert tokens[key] == whole
        elif not percentage:
            assert POISON in whole[:-1]
    assert core.stats().num_free_blocks == num_blocks - 1
    assert core.stats().num_waiting == 0
