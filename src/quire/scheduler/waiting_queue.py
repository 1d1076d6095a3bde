"""Waiting queue: completions without a row, the one to admit first on top.

Those that wait with blocks are also listed apart, since others may need these blocks more: forks,
and parked beams, which wait for their next token and not for a turn.
"""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Iterator, Sequence

from quire.scheduler.completion import Completion

_LEAST_SWEEP = 64


class WaitingQueue:
    """A heap by ``Completion.queue_key``. A discarded completion stays in it until it comes to the
    top, or until most of the heap is discarded ones."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, int], int, Completion]] = []
        self._num_pushed = 0
        self._members: dict[Completion, int] = {}  # who waits -> number of tokens yet to compute
        self._num_tokens = 0  # the sum of these numbers
        self._forks: list[Completion] = []  # by queue key: members with blocks, and parked beams

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Completion]:
        """Who waits for a row, in no particular order."""
        return iter(self._members)

    @property
    def forks(self) -> Sequence[Completion]:
        """All completions that wait with blocks, by queue key."""
        return self._forks

    def num_tokens_of(self, count: int) -> int:
        """How many tokens ``count`` completions of average length have yet to compute."""
        num_waiting = len(self._members)
        return self._num_tokens * min(count, num_waiting) // max(1, num_waiting)

    def push(self, completion: Completion) -> None:
        self._num_pushed += 1
        self._members[completion] = len(completion.token_ids) - completion.num_forked
        self._num_tokens += self._members[completion]
        heapq.heappush(self._heap, (completion.queue_key, self._num_pushed, completion))
        if not completion.table.is_empty:
            bisect.insort(self._forks, completion, key=_key)

    def park(self, beam: Completion) -> None:
        """Note a beam that gave up its row and keeps its blocks until it has its next token."""
        bisect.insort(self._forks, beam, key=_key)

    def peek(self) -> Completion | None:
        while self._heap and self._heap[0][2] not in self._members:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Completion:
        completion = self.peek()
        assert completion is not None, "pop of an empty queue"
        heapq.heappop(self._heap)
        self._num_tokens -= self._members.pop(completion)
        self._forget_fork(completion)
        return completion

    def discard(self, completion: Completion) -> None:
        """Remove a completion, if it waits."""
        self._forget_fork(completion)
        if completion not in self._members:
            return
        self._num_tokens -= self._members.pop(completion)
        if len(self._heap) > 2 * len(self._members) + _LEAST_SWEEP:
            self._sweep()

    def take_last_fork(self) -> Completion | None:
        """The completion with blocks that is to be admitted last; the caller takes its blocks."""
        if not self._forks:
            return None
        fork = self._forks.pop()
        if fork in self._members:
            self._members[fork] += fork.num_forked
            self._num_tokens += fork.num_forked
        fork.num_forked = 0
        return fork

    def _forget_fork(self, completion: Completion) -> None:
        if not self._forks:
            return
        place = bisect.bisect_left(self._forks, completion.queue_key, key=_key)
        if place < len(self._forks) and self._forks[place] is completion:
            del self._forks[place]

    def _sweep(self) -> None:
        """Drop discarded completions, which under a steady load might never come to the top."""
        self._heap = [entry for entry in self._heap if entry[2] in self._members]
        heapq.heapify(self._heap)


def _key(completion: Completion) -> tuple[int, int, int]:
    return completion.queue_key
