"""Keeps the garbage collector away from long-lived objects: a collection that visits the hundreds
of thousands of objects of libraries and model delays a step by the time of many steps.

A step creates thousands of objects for the readers of its tokens, which are in no cycles and are
freed by reference counting. So collections may be rare.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Net new objects between two collections, in a process of ours: about those of 600 requests of a
# server, which a collection visits in 10 ms.
_NEW_OBJECTS = 100_000
# The same in a user's program, whose garbage may hold large tensors: enough that collections of all
# that exists are rare.
_NEW_OBJECTS_OF_USERS = 10_000
_COLLECTIONS = 2  # collections of a generation before the next older one is included
# Python 3.12 freezes some hundred objects of its own when it starts, and a program thousands.
_FROZEN_BY_PYTHON = 1_000


def keep_all_that_exists() -> None:
    """Exempt all current objects from collection, in a process of ours where they live to its end.

    Older generations are collected sooner than by default, since young collections are rare: memory
    stays flat when many requests are aborted.
    """
    gc.collect()
    gc.freeze()
    new, *older = gc.get_threshold()
    if new == 0:  # never
        return
    gc.set_threshold(max(new, _NEW_OBJECTS), *(min(_COLLECTIONS, one) for one in older))


@contextmanager
def unwatched_heap() -> Iterator[None]:
    """Exempt all current objects for the length of the block, so that a collection in it looks only
    at what is new. Not for blocks that run often: it forgets what has been counted towards the next
    collections of older objects."""
    if gc.get_freeze_count() > _FROZEN_BY_PYTHON:
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _RareCollections:
    """A raised threshold of new objects, for as long as anybody needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_users = 0
        self._before = self._raised = gc.get_threshold()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Let automatic collections in a user's program be rare for the length of the block. They
        stay off if the program has switched them off, and its own settings come back."""
        self._begin()
        try:
            yield
        finally:
            self._end()

    def _begin(self) -> None:
        with self._lock:
            self._num_users += 1
            if self._num_users == 1:
                self._before = new, *older = gc.get_threshold()
                if 0 < new < _NEW_OBJECTS_OF_USERS:
                    gc.set_threshold(_NEW_OBJECTS_OF_USERS, *older)
                self._raised = gc.get_threshold()

    def _end(self) -> None:
        with self._lock:
            self._num_users -= 1
            if self._num_users == 0 and gc.get_threshold() == self._raised:
                gc.set_threshold(*self._before)


rare_collections = _RareCollections()
