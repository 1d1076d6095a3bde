"""Who waits, in which order, and for how long they are remembered."""

from __future__ import annotations

import gc
import weakref

from quire.kv_cache.manager import BlockTable
from quire.request import EngineRequest, RowSampling
from quire.scheduler.completion import Completion
from quire.scheduler.waiting_queue import WaitingQueue


class Prompt(list[int]):
    """A list that can be watched."""


def completion(
    order: int, priority: int = 0, blocks: tuple[int, ...] = (), num_tokens: int = 2
) -> Completion:
    request = EngineRequest(
        request_id=str(order),
        prompt_token_ids=Prompt([1] * num_tokens),
        sampling=RowSampling(),
        max_tokens=4,
        priority=priority,
    )
    return Completion.first_of(request, order, BlockTable(groups=(list(blocks),)))


def test_smallest_priority_first_then_the_oldest() -> None:
    queue = WaitingQueue()
    for order, priority in enumerate([1, 0, 1, 0]):
        queue.push(completion(order, priority))
    assert [queue.pop().order for _ in range(4)] == [1, 3, 0, 2]
    assert queue.peek() is None


def test_aborted_completions_are_let_go_though_their_turn_never_comes() -> None:
    queue = WaitingQueue()
    queue.push(completion(0, priority=-1))
    prompts: list[weakref.ref[object]] = []
    for order in range(1, 1000):
        aborted = completion(order)
        prompts.append(weakref.ref(aborted.request.prompt_token_ids))
        queue.push(aborted)
        queue.discard(aborted)
    del aborted
    gc.collect()
    assert sum(prompt() is not None for prompt in prompts) < 130
    assert len(queue) == 1 and queue.pop().order == 0


def test_what_is_discarded_is_neither_counted_nor_admitted() -> None:
    queue = WaitingQueue()
    waiting = [completion(order) for order in range(4)]
    for one in waiting:
        queue.push(one)
    queue.discard(waiting[0])
    queue.discard(waiting[2])
    queue.discard(waiting[2])
    assert len(queue) == 2 and queue.num_tokens_of(2) == 4
    assert queue.pop() is waiting[1]
    assert [queue.pop(), queue.peek()] == [waiting[3], None]
    assert len(queue) == queue.num_tokens_of(1) == 0


def test_as_many_tokens_wait_as_those_have_whom_there_is_a_row_for() -> None:
    queue = WaitingQueue()
    assert queue.num_tokens_of(3) == 0
    for order, num_tokens in enumerate([10, 20, 30]):
        queue.push(completion(order, num_tokens=num_tokens))
    assert [queue.num_tokens_of(count) for count in (0, 1, 2, 3, 9)] == [0, 20, 40, 60, 60]


def test_of_a_fork_one_token_waits_until_its_blocks_are_taken() -> None:
    queue = WaitingQueue()
    first, last = (completion(order, blocks=(1,), num_tokens=30) for order in (0, 1))
    for fork in (first, last):
        fork.num_forked = 29
        queue.push(fork)
    assert queue.num_tokens_of(2) == 2
    assert queue.take_last_fork() is last
    assert (last.num_forked, queue.num_tokens_of(2)) == (0, 31)
    queue.discard(first)
    assert queue.num_tokens_of(1) == 30
    assert queue.pop() is last
    assert queue.num_tokens_of(1) == 0


def test_a_parked_beam_has_blocks_and_no_turn() -> None:
    queue = WaitingQueue()
    beam, lost, fork = (completion(order, blocks=(1,), num_tokens=30) for order in (2, 1, 0))
    for one in (beam, lost):
        one.num_forked = 30
        queue.park(one)
    fork.num_forked = 29
    queue.push(fork)
    assert list(queue.forks) == [fork, lost, beam]
    assert (len(queue), list(queue), queue.num_tokens_of(3)) == (1, [fork], 1)
    queue.discard(beam)
    assert queue.take_last_fork() is lost
    assert (lost.num_forked, queue.num_tokens_of(3)) == (0, 1)
    assert queue.pop() is fork
    assert queue.peek() is None and not queue.forks


def test_forks_are_taken_from_the_last_and_stay_in_the_queue() -> None:
    queue = WaitingQueue()
    first, gone, last, plain = (
        completion(2, blocks=(1,)),
        completion(3, priority=7, blocks=(2,)),
        completion(1, priority=5, blocks=(3,)),
        completion(9, priority=9),
    )
    for one in (first, gone, last, plain):
        queue.push(one)
    queue.discard(gone)
    assert queue.take_last_fork() is last
    assert queue.forks
    assert queue.pop() is first  # admitted, so no longer one that waits
    assert not queue.forks
    assert queue.take_last_fork() is None
    assert [queue.pop(), queue.pop()] == [last, plain]
