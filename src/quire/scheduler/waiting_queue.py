"""Waiting queue: completions without a row, the one to admit first on top."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from quire.scheduler.completion import Completion


class WaitingQueue:
    """A heap by ``Completion.queue_key``; finished completions drop out by themselves."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, int], int, Completion]] = []
        self._num_pushed = 0

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Completion]:
        """In no particular order."""
        return (entry[2] for entry in self._heap if not entry[2].is_finished)

    def push(self, completion: Completion) -> None:
        self._num_pushed += 1
        heapq.heappush(self._heap, (completion.queue_key, self._num_pushed, completion))

    def peek(self) -> Completion | None:
        while self._heap and self._heap[0][2].is_finished:
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Completion:
        completion = self.peek()
        assert completion is not None, "pop of an empty queue"
        heapq.heappop(self._heap)
        return completion
