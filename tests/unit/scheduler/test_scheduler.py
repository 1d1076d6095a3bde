"""Scheduler and KV cache against a fake device that checks every block it reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.engine.core import EngineCore
from quire.kv_cache.manager import BlockTable
from quire.request import BeamSearch, EngineRequest, FinishReason, RowSampling, Watch
from quire.row_sampling import num_beam_candidates
from quire.scheduler.completion import Completion
from quire.scheduler.waiting_queue import WaitingQueue
from quire.step import StepPlan
from tests.fakes.device import VOCAB, FakeDevice, FakeResult, next_token
from tests.unit.scheduler.engines import (
    MAX_LEN,
    build,
    drain,
    expected,
    last_deltas,
    request,
    run,
)


@st.composite
def workloads(draw: st.DrawFn) -> list[EngineRequest]:
    stems = [draw(st.lists(st.integers(0, 5), max_size=24)) for _ in range(2)]
    requests = []
    for number in range(draw(st.integers(1, 8))):
        tail = draw(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=9))
        requests.append(
            request(
                f"r{number}",
                draw(st.sampled_from(stems)) + tail,
                draw(st.integers(1, 20)),
                n=draw(st.integers(1, 3)),
                sampling=RowSampling(
                    seed=draw(st.integers(0, 3)), stop_token_ids=draw(st.sampled_from([(), (1, 7)]))
                ),
                priority=draw(st.integers(0, 2)),
                watch=draw(st.sampled_from(list(Watch))),
                cache_salt=draw(st.sampled_from([None, "salt"])),
            )
        )
    return requests


@settings(max_examples=120, deadline=None)
@given(
    workload=workloads(),
    depth=st.integers(1, 3),
    num_blocks=st.sampled_from([18, 24, 200]),
    windows=st.sampled_from([(None,), (6,), (None, 5)]),
    prefix_caching=st.booleans(),
    threshold=st.sampled_from([0, 3]),
    budget=st.sampled_from([5, 16, 64]),
    short=st.sampled_from([None, 4, 9]),
)
def test_tokens_do_not_depend_on_how_the_engine_runs(
    workload: list[EngineRequest],
    depth: int,
    num_blocks: int,
    windows: tuple[int | None, ...],
    prefix_caching: bool,
    threshold: int,
    budget: int,
    short: int | None,
) -> None:
    core, _ = build(
        num_blocks=num_blocks * len(windows),
        depth=depth,
        windows=windows,
        prefix_caching=prefix_caching,
        long_prefill_token_threshold=threshold,
        max_num_batched_tokens=budget,
        short_step_tokens=short,
        policy="priority",
    )
    answers = run(core, workload)
    wanted: dict[tuple[str, int], list[int]] = {}
    for each in workload:
        wanted |= expected(each)
    assert answers == wanted
    assert core.stats().num_free_blocks == num_blocks * len(windows) - 1


def test_small_cache_preempts_and_changes_nothing() -> None:
    workload = [request(f"r{i}", [i] * 9, 40) for i in range(6)]
    small, _ = build(num_blocks=18, max_num_batched_tokens=64)
    large, _ = build(num_blocks=400, max_num_batched_tokens=64)
    assert run(small, workload) == run(large, workload)
    assert small.stats().num_preemptions >= 10
    assert large.stats().num_preemptions == 0


@pytest.mark.parametrize(("windows", "num_blocks"), [((None,), 17), ((None, 24), 29)], ids=str)
def test_a_preempted_prompt_of_many_steps_does_not_begin_over_and_over(
    windows: tuple[int | None, ...], num_blocks: int
) -> None:
    """While another row grows, which would preempt it in the middle each time."""
    core, device = build(
        num_blocks=num_blocks, windows=windows, prefix_caching=False, max_num_batched_tokens=8
    )
    workload = [request("a", [1, 2, 3], 50), request("b", list(range(48)), 8)]
    core.add_request(workload[0])
    found = [delta for _ in range(16) for delta in core.step()]
    core.add_request(workload[1])
    answers = drain(core)
    for delta in reversed(found):
        answers[delta.request_id, delta.index][:0] = delta.new_token_ids
    assert answers == {k: v for each in workload for k, v in expected(each).items()}
    assert core.stats().num_preemptions == 1
    assert device.num_computed_tokens < 3 + 49 + 2 * (48 + 7)


def test_a_prompt_that_is_changed_from_outside_stays_what_it_was() -> None:
    workload = [request(f"r{i}", [i] * 9, 40, n=2) for i in range(4)]
    wanted = {key: tokens for each in workload for key, tokens in expected(each).items()}
    core, _ = build(num_blocks=18, max_num_batched_tokens=64)
    for each in workload:
        core.add_request(each)
    deltas = core.step()
    for each in workload:
        each.prompt_token_ids.extend([7] * 5)
    found = drain(core)
    for delta in deltas:
        found[delta.request_id, delta.index][:0] = delta.new_token_ids
    assert found == wanted
    assert core.stats().num_preemptions > 0


def test_late_device_keeps_several_steps_in_flight() -> None:
    core, device = build(depth=3)
    run(core, [request("a", [1, 2, 3], 20)])
    assert device.max_in_flight == 3


def test_run_ahead_never_computes_past_max_tokens() -> None:
    core, device = build(depth=3)
    run(core, [request("a", [1, 2, 3], 10)])
    assert device.num_computed_tokens == 3 + 9  # the last token's KV is never needed


def test_requests_that_arrive_together_compute_a_shared_prefix_once() -> None:
    core, device = build(max_num_batched_tokens=256)
    prefix = list(range(40))
    run(core, [request(f"r{i}", [*prefix, i], 1) for i in range(8)])
    assert device.num_computed_tokens == 41 + 7
    assert core.stats().num_prefix_hit_tokens == 7 * 40
    assert core.stats().num_prefix_query_tokens == 8 * 41


def test_without_a_prefix_cache_nothing_is_looked_up_in_it() -> None:
    core, _ = build(prefix_caching=False)
    run(core, [request("a", list(range(12)), 1, n=3)])
    assert core.stats().num_prefix_query_tokens == 0


@pytest.mark.parametrize("prompt", [[5], list(range(16))], ids=["a token", "blocks"])
def test_a_prompt_counts_once_whatever_comes_of_its_completions(prompt: list[int]) -> None:
    """8 blocks: the siblings are preempted, and find blocks that others of them have left."""
    core, _ = build(num_blocks=9)
    run(core, [request("a", prompt, 12, n=5)])
    stats = core.stats()
    assert stats.num_preemptions or prompt == [5]
    assert (stats.num_prompt_tokens, stats.num_prefix_query_tokens) == (len(prompt), len(prompt))
    assert stats.num_prefix_hit_tokens == 0


def test_a_prompt_counts_when_it_begins_to_run() -> None:
    core, _ = build(max_num_seqs=1)
    prompt = list(range(12))
    run(core, [request("first", prompt, 1)])
    core.add_request(request("runs", [9] * 5, 4))
    core.step()
    core.add_request(request("waits", prompt, 1, n=2))
    core.add_request(request("aborted", [7] * 40, 1))
    core.step()
    assert (core.stats().num_prompt_tokens, core.stats().num_prefix_hit_tokens) == (12 + 5, 0)
    core.abort(["aborted"])
    drain(core)
    assert (core.stats().num_prompt_tokens, core.stats().num_prefix_hit_tokens) == (12 + 5 + 12, 8)


def test_the_prompt_of_a_beam_search_counts_once() -> None:
    core, _ = build(max_num_batched_tokens=64)
    sampling = RowSampling(temperature=0.0, num_logprobs=num_beam_candidates(3, 0))
    beams = {"beam": BeamSearch(width=3), "sampling": sampling, "watch": Watch.AT_END, "n": 3}
    run(core, [request("a", list(range(12)), 6, **beams)])
    assert core.stats().num_prompt_tokens == core.stats().num_prefix_query_tokens == 12


def test_cache_salt_separates_prefixes() -> None:
    core, device = build(max_num_batched_tokens=256)
    prefix = list(range(40))
    run(core, [request(f"r{i}", prefix, 1, cache_salt=str(i)) for i in range(3)])
    assert device.num_computed_tokens == 3 * 40


def test_completions_of_one_request_share_the_prompt_without_prefix_cache() -> None:
    core, device = build(prefix_caching=False, max_num_batched_tokens=256)
    run(core, [request("a", list(range(30)), 1, n=8)])
    assert device.num_computed_tokens == 30 + 7  # each sibling computes the last token only


def test_block_being_written_by_siblings_is_copied_not_shared() -> None:
    core, _ = build(max_num_batched_tokens=256)
    core.add_request(request("a", list(range(30)), 8, n=4))
    shared_while_all_run = set()
    while core.has_unfinished:
        core.step()
        core.check_integrity()
        if core.stats().num_running == 4:
            shared_while_all_run.add(core.stats().num_shared_blocks)
    assert shared_while_all_run == {30 // 4}


def test_max_num_seqs_counts_completions() -> None:
    core, device = build(max_num_seqs=3)
    run(core, [request("a", [1, 2], 5, n=4), request("b", [3], 5)])
    assert device.max_batch == 3


def test_priority_goes_first_and_is_preempted_last() -> None:
    core, _ = build(max_num_seqs=1, policy="priority")
    core.add_request(request("low", [1, 2], 4, priority=5))
    core.add_request(request("high", [3, 4], 4, priority=-1))
    first = core.step()
    assert [delta.request_id for delta in first] == ["high"]


def test_without_chunked_prefill_a_prompt_is_computed_in_one_step() -> None:
    core, device = build(enable_chunked_prefill=False, max_num_batched_tokens=MAX_LEN)
    core.add_request(request("a", list(range(40)), 2))
    core.add_request(request("b", list(range(30, 60)), 2))
    core.step()
    assert device.num_computed_tokens == 40
    assert set(drain(core)) == {("a", 0), ("b", 0)}


def test_long_prefill_threshold_lets_others_through() -> None:
    core, _ = build(long_prefill_token_threshold=4, max_num_batched_tokens=16)
    core.add_request(request("long", list(range(40)), 2))
    core.add_request(request("short", [1, 2], 2))
    assert [delta.request_id for delta in core.step()] == ["short"]


def test_a_burst_beside_a_row_that_decodes_comes_in_short_steps() -> None:
    limits = {"max_num_batched_tokens": 64, "short_step_tokens": 16}
    core, _ = build(prefix_caching=False, **limits)
    core.add_request(request("first", [1, 2, 3], 30))
    core.step()
    for name in "ab":
        core.add_request(request(name, list(range(14)), 4))
    told = [[delta.request_id for delta in core.step()] for _ in range(3)]
    assert told == [["first", "a"], ["first", "a", "b"], ["first", "a", "b"]]
    for name in "cdefg":  # together they fill a step
        core.add_request(request(name, list(range(14)), 4))
    assert [delta.request_id for delta in core.step()] == ["first", "a", "b", "c", "d", "e", "f"]
    drain(core)


def test_a_prompt_that_whole_steps_would_not_begin_does_not_begin_in_short_ones() -> None:
    figures = []
    for short in (None, 8):
        core, device = build(
            num_blocks=22,
            prefix_caching=False,
            max_num_batched_tokens=64,
            short_step_tokens=short,
        )
        for name in "abcd":
            core.add_request(request(name, [1, 2, 3, 4], 16))
        for _ in range(6):
            core.step()
        core.add_request(request("long", list(range(48)), 8))
        drain(core)
        figures.append((core.stats().num_preemptions, device.num_computed_tokens))
    assert figures == [(0, 4 * (4 + 15) + 48 + 7)] * 2  # no token twice


def test_siblings_that_wait_with_their_blocks_fill_no_step() -> None:
    core, device = build(prefix_caching=False, max_num_batched_tokens=64, short_step_tokens=16)
    core.add_request(request("first", [1, 2, 3], 30))
    core.step()
    core.add_request(request("many", list(range(20)), 4, n=3))
    core.add_request(request("next", list(range(38)), 4))
    sizes = [tokens_of_step(core, device) for _ in range(4)]
    assert sizes == [16] * 4  # "next" is in three of them, the siblings in the last
    drain(core)


def test_a_queue_for_which_there_is_no_row_fills_no_step() -> None:
    core, device = build(
        prefix_caching=False, max_num_seqs=2, max_num_batched_tokens=64, short_step_tokens=16
    )
    core.add_request(request("first", [1, 2, 3], 30))
    core.step()
    for name in "abcd":
        core.add_request(request(name, list(range(48)), 4))
    assert [tokens_of_step(core, device) for _ in range(4)] == [16, 16, 16, 1 + 3]
    drain(core)


def tokens_of_step(core: EngineCore, device: FakeDevice) -> int:
    before = device.num_computed_tokens
    core.step()
    return device.num_computed_tokens - before


def test_long_prompts_of_higher_priority_let_rows_decode_beside_them() -> None:
    core, _ = build(max_num_batched_tokens=8, policy="priority")
    core.add_request(request("low", [1, 2, 3], 20, priority=5))
    core.step()
    core.add_request(request("high", list(range(40)), 2, priority=-1))
    told = [[delta.request_id for delta in core.step()] for _ in range(6)]
    assert told == [["low"]] * 5 + [["high", "low"]]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("num_steps", [0, 1, 3, 6])
def test_abort_frees_everything_at_any_moment(depth: int, num_steps: int) -> None:
    core, _ = build(depth=depth)
    free = core.stats().num_free_blocks
    core.add_request(request("a", list(range(30)), 20, n=3))
    core.add_request(request("b", [1, 2, 3], 9))
    for _ in range(num_steps):
        core.step()
    core.abort(["a", "unknown"])
    core.check_integrity()
    answers = drain(core)
    assert set(answers) <= {("b", 0)}
    assert core.stats().num_free_blocks == free


@pytest.mark.parametrize("watch", list(Watch))
@pytest.mark.parametrize(("depth", "num_blocks"), [(1, 200), (3, 200), (2, 14)])
@pytest.mark.parametrize("num_steps", [0, 2, 5, 9])
def test_an_abort_that_keeps_tokens_tells_each_of_them_once(
    watch: Watch, depth: int, num_blocks: int, num_steps: int
) -> None:
    core, _ = build(depth=depth, num_blocks=num_blocks)  # with 14, some are preempted
    given_up = request("a", list(range(10)), 20, n=3, watch=watch)
    other = request("b", [1, 2, 3], 9)
    core.add_request(given_up)
    core.add_request(other)
    told: dict[tuple[str, int], list[int]] = {}
    for _ in range(num_steps):
        for delta in core.step():
            told.setdefault((delta.request_id, delta.index), []).extend(delta.new_token_ids)
    num_made = core.stats().num_generation_tokens
    core.abort(["a", "unknown"], keeps_tokens=True)
    core.check_integrity()
    ends = []
    while core.has_unfinished:
        for delta in core.step():
            ends += [delta] if delta.request_id == "a" else []
            told.setdefault((delta.request_id, delta.index), []).extend(delta.new_token_ids)
    assert [(end.index, end.finish_reason) for end in ends] == [
        (index, FinishReason.ABORT) for index in range(3)
    ]
    every = {**expected(given_up), **expected(other)}
    assert all(tokens == every[key][: len(tokens)] for key, tokens in told.items())
    assert told["b", 0] == every["b", 0]
    num_after = core.stats().num_generation_tokens - num_made
    assert sum(map(len, told.values())) == num_made + num_after


def test_logprobs_of_an_abort_go_with_its_tokens() -> None:
    core, _ = build()
    sampling = RowSampling(num_logprobs=1)
    core.add_request(request("a", [1, 2], 9, sampling=sampling, watch=Watch.AT_END))
    for _ in range(4):
        core.step()
    core.abort(["a"], keeps_tokens=True)
    (end,) = core.step()
    assert end.logprobs is not None
    assert len(end.logprobs) == len(end.new_token_ids) == 4


def test_what_is_aborted_again_is_not_told() -> None:
    core, _ = build()
    core.add_request(request("a", [1, 2], 9, watch=Watch.AT_END))
    core.step()
    core.abort(["a"], keeps_tokens=True)
    core.abort(["a"])
    core.add_request(request("a", [3], 2))
    assert len(drain(core)[("a", 0)]) == 2


def test_finish_ends_one_completion_and_not_its_siblings() -> None:
    core, _ = build()
    core.add_request(request("a", [1, 2, 3], 6, n=2))
    core.step()
    core.finish("a", 0)
    answers = drain(core)
    assert len(answers[("a", 1)]) == 6


def test_duplicate_request_id_is_refused_and_harms_nothing() -> None:
    core, _ = build()
    core.add_request(request("a", [1], 3))
    with pytest.raises(ValueError, match="'a' is in use"):
        core.add_request(request("a", [2], 3))
    assert len(drain(core)[("a", 0)]) == 3


def test_request_larger_than_the_cache_gets_an_error_not_a_hang() -> None:
    core, _ = build(num_blocks=5)
    core.add_request(request("big", list(range(40)), 4))
    core.add_request(request("small", [1, 2], 4))
    last = last_deltas(core)
    assert "needs 10 KV blocks, the cache has 4" in str(last["big"].error)
    assert last["big"].is_refusal
    assert last["small"].finish_reason is FinishReason.LENGTH


def test_waste_of_reserved_slots_is_below_one_block_a_row() -> None:
    core, _ = build(block_size=4, max_num_batched_tokens=64)
    core.add_request(request("a", list(range(50)), 14))
    while core.has_unfinished:
        core.step()
        assert core.stats().kv_waste < 4 / 50


def test_all_completions_without_a_row_are_counted_as_waiting() -> None:
    core, _ = build(max_num_seqs=3)
    core.add_request(request("a", [1, 2, 3], 9, n=4))
    core.add_request(request("b", [4], 9, n=2))
    counts = []
    for _ in range(3):
        stats = core.stats()
        counts.append((stats.num_running, stats.num_waiting))
        core.step()
    assert counts == [(0, 6), (2, 4), (3, 3)]  # siblings run when the prompt is computed
    core.abort(["b"])
    core.finish("a", 3)
    assert (core.stats().num_running, core.stats().num_waiting) == (2, 1)


def test_a_look_at_the_numbers_leaves_the_planner_alone() -> None:
    core, _ = build()
    core.add_request(request("a", [1], 2))
    core.add_request(request("b", [2], 9))
    while core.stats().num_running != 1:
        core.step()
    scheduler = core._scheduler
    assert scheduler._rows is None  # one has just left
    assert core.stats().kv_waste > 0
    assert scheduler._rows is None


def test_reset_prefix_cache_waits_for_running_requests() -> None:
    core, device = build()
    core.add_request(request("a", list(range(12)), 3))
    core.step()
    assert not core.reset_prefix_cache()
    drain(core)
    assert core.reset_prefix_cache()
    computed = device.num_computed_tokens
    run(core, [request("b", list(range(12)), 1)])
    assert device.num_computed_tokens == computed + 12


def test_stop_token_is_reported_with_its_id() -> None:
    prompt = [3, 1, 4]
    stop = next_token(prompt, 0)
    core, _ = build()
    core.add_request(request("a", prompt, 9, sampling=RowSampling(stop_token_ids=(stop,))))
    (delta,) = core.step()
    assert (delta.finish_reason, delta.stop_reason) == (FinishReason.STOP, stop)
    assert np.array_equal(delta.new_token_ids, [stop])


def test_many_siblings_that_wait_with_all_blocks_make_room_for_each_other() -> None:
    """Each shares every block of the prompt, and needs a copy of the last."""
    core, _ = build(num_blocks=5, max_num_seqs=2)
    each = request("a", list(range(15)), 1, n=700)
    assert run(core, [each]) == expected(each)


def test_a_preemption_does_not_go_through_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def walked(queue: WaitingQueue) -> Iterator[Completion]:
        raise AssertionError(f"{len(queue)} completions wait")

    monkeypatch.setattr(WaitingQueue, "__iter__", walked)
    core, _ = build(num_blocks=18, max_num_batched_tokens=64)
    for index in range(20):
        core.add_request(request(str(index), [index] * 9, 40))
    while core.has_unfinished:
        core.step()
    assert core.stats().num_preemptions > 10


def test_a_long_prompt_that_waits_for_blocks_is_not_looked_up_at_every_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    core, _ = build(num_blocks=20, block_size=4, max_num_batched_tokens=64)
    for index in range(3):
        core.add_request(request(str(index), [index] * 12, 12))
    core.step()
    lookups: list[int] = []
    find = core._scheduler.kv.find_prefix

    def counted(hashes: list[bytes], max_tokens: int) -> BlockTable:
        lookups.append(max_tokens)
        return find(hashes, max_tokens)

    monkeypatch.setattr(core._scheduler.kv, "find_prefix", counted)
    core.add_request(request("long", [9] * 60, 2))
    num_running = []
    while core.stats().num_waiting:
        core.step()
        num_running.append(core.stats().num_running)
    assert num_running.count(3) >= 9
    assert len(lookups) <= 3
    drain(core)


def test_a_prompt_that_waits_is_admitted_when_another_has_computed_its_prefix() -> None:
    """Although no block came free meanwhile."""
    core, _ = build(num_blocks=21, block_size=4, max_num_batched_tokens=16, max_num_seqs=4)
    core.add_request(request("runs", [7] * 8, 30))
    core.step()
    for name in ("first", "second"):
        core.add_request(request(name, [3] * 44, 8))
    most = 0
    while core.has_unfinished:
        core.step()
        core.check_integrity()
        most = max(most, core.stats().num_running)
    assert most == 3


@pytest.mark.parametrize("num_steps", [1, 2])
def test_a_completion_that_ends_before_its_prompt_is_computed_never_runs(num_steps: int) -> None:
    core, _ = build(max_num_batched_tokens=4)
    core.add_request(request("a", list(range(1, 9)), 2, n=3))
    for _ in range(num_steps):
        core.step()
    core.finish("a", 1)
    tokens = drain(core)
    assert set(tokens) == {("a", 0), ("a", 2)}


def test_rows_get_blocks_together_so_that_most_steps_change_none() -> None:
    changes: list[int] = []

    class Counting(FakeDevice):
        def submit(self, plan: StepPlan) -> FakeResult:
            changes.append(sum(len(change.rows) for change in plan.blocks))
            return super().submit(plan)

    device = Counting(8)
    core, _ = build(block_size=8, device=device, max_num_batched_tokens=256)
    lengths = [9 + i for i in range(8)]
    run(core, [request(str(i), list(range(n)), 33) for i, n in enumerate(lengths)])
    # Every border but that of the last token, which is not computed; no block that is never used.
    assert sum(changes) == sum(-(-(n + 32) // 8) - -(-n // 8) for n in lengths)
    assert sum(count > 0 for count in changes) <= len(changes) / 3


@pytest.mark.parametrize("depth", [1, 2])
def test_a_block_that_a_decode_step_completes_is_not_read_in_that_step(depth: int) -> None:
    core, _ = build(depth=depth, max_num_batched_tokens=64)
    prompt = [1, 2, 3, 4, 5, 6, 7]
    known = RowSampling(logits_processors=(lambda tokens, logits: logits,))  # one step in flight
    first = request("first", prompt, 6, n=2, sampling=known)
    core.add_request(first)
    core.step()  # its tokens are known before the next step is planned
    token = next_token(prompt, first.row_seed(0))  # what completes its second block
    second = request("second", [*prompt, token, 9], 4)
    core.add_request(second)
    key = ("second", 0)
    assert drain(core)[key] == expected(second)[key]
