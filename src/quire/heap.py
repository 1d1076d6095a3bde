"""Keeps the garbage collector away from long-lived objects: a collection that visits the hundreds
of thousands of objects of libraries and model delays a step by the time of many steps.

It also makes collections rare: a step creates thousands of objects for the readers of its tokens,
which are in no cycles and are freed by reference counting.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# Net new objects between two collections: about those of 600 requests of a server, which a
# collection visits in 10 ms.
_NEW_OBJECTS = 100_000
_COLLECTIONS = 2  # collections of a generation before the next older one is included
# Python 3.12 freezes some hundred objects of its own when it starts; a program that freezes has
# imported more.
_FROZEN_BY_PYTHON = 5_000


def keep_all_that_exists() -> None:
    """Exempt all current objects from collection, in a process of ours where they live to its end.

    Older generations are collected sooner than by default, since young collections are rare: memory
    stays flat when many requests are aborted.
    """
    gc.collect()
    gc.freeze()
    _collect_rarely()
    new, *older = gc.get_threshold()
    gc.set_threshold(new, *(min(_COLLECTIONS, one) for one in older))


@contextmanager
def unwatched_heap() -> Iterator[None]:
    """`keep_all_that_exists` for the length of the block, in a user's program: it is undone after,
    and the thresholds of older generations stay as the program set them."""
    if gc.get_freeze_count() > _FROZEN_BY_PYTHON:
        yield
        return
    before = gc.get_threshold()
    gc.freeze()
    _collect_rarely()
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def _collect_rarely() -> None:
    """Raise the threshold of young objects, unless it is as high already or 0 (never)."""
    new, *older = gc.get_threshold()
    if 0 < new < _NEW_OBJECTS:
        gc.set_threshold(_NEW_OBJECTS, *older)
