"""Who waits, in which order, and for how long they are remembered."""

from __future__ import annotations

import gc
import weakref

from quire.kv_cache.manager import BlockTable
from quire.request import EngineRequest, FinishReason, RowSampling
from quire.scheduler.completion import Completion
from quire.scheduler.waiting_queue import WaitingQueue


class Prompt(list[int]):
    """A list that can be watched."""


def completion(order: int, priority: int = 0) -> Completion:
    request = EngineRequest(
        request_id=str(order),
        prompt_token_ids=Prompt([1, 2]),
        sampling=RowSampling(),
        max_tokens=4,
        priority=priority,
    )
    return Completion.first_of(request, order, BlockTable(groups=([],)))


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
        aborted.finish_reason = FinishReason.ABORT
    del aborted
    gc.collect()
    assert sum(prompt() is not None for prompt in prompts) < 130
    assert len(queue) == 1 and queue.pop().order == 0
