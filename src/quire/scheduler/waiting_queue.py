"""Waiting queue: completions without a row, the one to admit first on top."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from quire.scheduler.completion import Completion

_LEAST_SWEEP = 64


class WaitingQueue:
    """A heap by ``Completion.queue_key``; finished completions drop out by themselves: on top, or
    when they make up half of a heap that grows."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[int, int, int], int, Completion]] = []
        self._num_pushed = 0
        self._sweep_at = _LEAST_SWEEP

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Completion]:
        """In no particular order."""
        return (entry[2] for entry in self._heap if not entry[2].is_finished)

    def push(self, completion: Completion) -> None:
        if len(self._heap) >= self._sweep_at:
            self._sweep()
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

    def _sweep(self) -> None:
        """Let go of aborted completions that no turn ever comes to under a steady load."""
        self._heap = [entry for entry in self._heap if not entry[2].is_finished]
        heapq.heapify(self._heap)
        self._sweep_at = max(_LEAST_SWEEP, 2 * len(self._heap))
