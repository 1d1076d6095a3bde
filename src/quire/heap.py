"""What the garbage collector need not look through: a collection that visits the objects of the
libraries and the model, hundreds of thousands, holds up a step for as long as many steps take.

And it need not look often: a step leaves thousands of objects to whoever reads its tokens, which
are in no cycle and go by themselves.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# That have come and not gone since one collection, before the next: those of 600 requests of a
# server, which takes 10 ms to look through them.
_NEW_OBJECTS = 100_000
_COLLECTIONS = 2  # of younger objects, until one that looks at older ones as well


def keep_all_that_exists() -> None:
    """Of a process of ours, whose objects live as long as it does.

    What outlives a few collections, such as requests that were broken off, would wait long for the
    next that looks at it: so these follow soon, and memory stays flat when clients vanish.
    """
    gc.collect()
    gc.freeze()
    _collect_rarely()
    new, *older = gc.get_threshold()
    gc.set_threshold(new, *(min(_COLLECTIONS, one) for one in older))


@contextmanager
def unwatched_heap() -> Iterator[None]:
    """While the block runs, in somebody's own program: what it has set for older objects stays."""
    if gc.get_freeze_count():
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
    """Unless that is so already; 0 is never."""
    new, *older = gc.get_threshold()
    if 0 < new < _NEW_OBJECTS:
        gc.set_threshold(_NEW_OBJECTS, *older)
