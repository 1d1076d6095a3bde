"""Admission: a completion that lacks blocks is tried again when, and only when, that may help."""

from __future__ import annotations

import pytest

from quire.config import SchedulerConfig
from quire.kv_cache.manager import BlockTable, KVCacheManager
from quire.request import EngineRequest, RowSampling
from quire.scheduler.admission import Admission, Span
from quire.scheduler.completion import Completion
from quire.scheduler.row_blocks import RowBlocks
from quire.scheduler.row_table import RowTable
from quire.scheduler.waiting_queue import WaitingQueue

PROMPT = list(range(40))
BUDGET = 64


class Case:
    """A prompt of 10 blocks, of which another owner computes the first 8; 4 are free."""

    def __init__(
        self,
        windows: tuple[int | None, ...] = (None,),
        chunked: bool = True,
        budget: int = BUDGET,
    ) -> None:
        self.kv = KVCacheManager(num_blocks=1 + 12 * len(windows), block_size=4, windows=windows)
        self.queue = WaitingQueue()
        config = SchedulerConfig(
            max_num_seqs=4, max_num_batched_tokens=budget, enable_chunked_prefill=chunked
        )
        blocks = RowBlocks(self.kv, RowTable(4, 64))
        self.admission = Admission(config, self.kv, blocks, self.queue)
        self.completion = self.new("a")
        self.other = self.kv.new_table()
        self.kv.grow(self.other, 0, 32)

    def new(
        self,
        name: str,
        table: BlockTable | None = None,
        *,
        use_prefix_cache: bool = True,
        wants_logprobs: bool = False,
    ) -> Completion:
        request = EngineRequest(
            request_id=name,
            prompt_token_ids=PROMPT,
            sampling=RowSampling(num_prompt_logprobs=0 if wants_logprobs else None),
            max_tokens=4,
            use_prefix_cache=use_prefix_cache,
        )
        return Completion.first_of(request, len(self.queue), table or self.kv.new_table())

    def name_blocks_of_other(self) -> None:
        self.completion.extend_hashes(self.completion.token_ids, 4)
        self.kv.register(self.other, self.completion.hashes, 8)

    def must_wait(self) -> bool:
        return self.admission.must_wait(self.completion, BUDGET)


def test_who_was_not_refused_need_not_wait() -> None:
    assert not Case().must_wait()


def test_who_was_refused_waits_while_nothing_changes_in_its_favour() -> None:
    case = Case()
    assert case.admission.admit(case.completion, BUDGET) is None
    assert case.must_wait()
    case.kv.grow(case.other, 32, 36)  # fewer are free than before
    assert case.must_wait()
    assert not case.admission.must_wait(case.completion, BUDGET - 1)
    assert not case.admission.must_wait(case.new("b"), BUDGET)
    case.admission.ask_again()
    assert not case.must_wait()


@pytest.mark.parametrize("windows", [(None,), (None, 6), (6,)], ids=str)
def test_blocks_that_come_free_end_the_wait(windows: tuple[int | None, ...]) -> None:
    case = Case(windows)
    assert case.admission.admit(case.completion, BUDGET) is None
    case.kv.release(case.other)
    assert not case.must_wait()
    assert case.admission.admit(case.completion, BUDGET) == Span(0, 40)
    case.kv.check_integrity([case.completion.table])


@pytest.mark.parametrize("windows", [(None,), (None, 6), (6,)], ids=str)
def test_a_prefix_that_another_has_computed_ends_the_wait(windows: tuple[int | None, ...]) -> None:
    case = Case(windows)
    assert case.admission.admit(case.completion, BUDGET) is None
    case.name_blocks_of_other()
    assert not case.must_wait()
    assert case.admission.admit(case.completion, BUDGET) == Span(32, 40)
    case.kv.check_integrity([case.completion.table, case.other])


def test_idle_blocks_of_its_prefix_that_another_takes_end_the_wait() -> None:
    """They counted as free when it was refused, and it would have taken them itself."""
    case = Case()
    case.name_blocks_of_other()
    case.kv.release(case.other)
    taken = case.kv.new_table()
    case.kv.grow(taken, 0, 12)  # 3 of the 4 that nobody has named; 10 - 8 = 2 are lacking
    assert case.admission.admit(case.completion, BUDGET) is None
    sharing = case.new("b")
    sharing.token_ids = sharing.token_ids[:33]
    assert case.admission.admit(sharing, BUDGET) == Span(32, 33)
    assert not case.must_wait()


def test_log_probabilities_of_a_prompt_need_it_computed_once() -> None:
    case = Case()
    case.name_blocks_of_other()
    case.kv.release(case.other)
    asked = RowSampling(num_prompt_logprobs=0)
    request = EngineRequest(request_id="a", prompt_token_ids=PROMPT, sampling=asked, max_tokens=4)
    completion = Completion.first_of(request, 0, case.kv.new_table())
    assert case.admission.admit(completion, BUDGET) == Span(0, 40)
    case.kv.release(completion.table)
    completion.are_prompt_logprobs_sent = True  # and then it was preempted
    assert case.admission.admit(completion, BUDGET) == Span(8, 40)  # what it did not overwrite


def test_only_prompts_that_are_looked_up_are_counted() -> None:
    case = Case()
    looked_up = [case.new("a")]
    others = [case.new("b", use_prefix_cache=False), case.new("c", wants_logprobs=True)]
    for completion in looked_up + others:
        assert case.admission.admit(completion, BUDGET) is None  # there is no room
    assert case.admission.num_query_tokens == 0
    case.name_blocks_of_other()
    case.kv.release(case.other)
    for completion in looked_up + others:
        assert case.admission.admit(completion, BUDGET) is not None
        case.kv.release(completion.table)
        completion.scheduled_time = 1.0
    counted = (len(PROMPT), 32)
    assert (case.admission.num_query_tokens, case.admission.num_hit_tokens) == counted
    assert case.admission.num_prompt_tokens == 3 * len(PROMPT)
    assert case.admission.admit(looked_up[0], BUDGET) is not None  # it was preempted
    assert case.admission.num_prompt_tokens == 3 * len(PROMPT)
    assert (case.admission.num_query_tokens, case.admission.num_hit_tokens) == counted


def test_a_prompt_that_may_not_be_cut_waits_for_a_larger_budget() -> None:
    case = Case(chunked=False)
    case.kv.release(case.other)
    assert case.admission.admit(case.completion, 39) is None
    assert case.admission.must_wait(case.completion, 39)
    assert case.admission.admit(case.completion, 40) == Span(0, 40)


def test_a_prompt_begins_with_a_short_step_only_where_a_whole_one_has_room() -> None:
    case = Case()
    assert case.admission.admit(case.completion, 8) is None  # 2 blocks, and 4 of the 10 are free
    case.kv.release(case.other)
    assert case.admission.admit(case.completion, 8) == Span(0, 8)
    case.kv.check_integrity([case.completion.table])


def test_a_prompt_longer_than_a_step_begins_where_one_step_has_room() -> None:
    case = Case(budget=16)
    assert case.admission.admit(case.completion, 8) == Span(0, 8)


def test_forks_are_dropped_until_a_block_has_fewer_owners() -> None:
    case = Case()
    forks = [case.new(str(i), case.kv.fork(case.other, 32)) for i in range(3)]
    for index, fork in enumerate(forks):
        fork.order = index
        fork.num_forked = 32
        case.queue.push(fork)
    alone = case.new("alone", case.kv.new_table())
    case.kv.grow(alone.table, 0, 4)
    alone.order, alone.num_forked = -1, 4
    case.queue.push(alone)
    assert case.admission.drop_forks()  # all three: the other owner is the only one left
    assert [fork.num_forked for fork in forks] == [0, 0, 0]
    assert (case.kv.pool.num_shared, alone.num_forked) == (0, 4)
    assert case.admission.drop_forks()
    assert not case.admission.drop_forks()
    case.kv.check_integrity([case.other])
