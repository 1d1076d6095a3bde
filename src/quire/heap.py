"""What the garbage collector need not look through: a collection that visits the objects of the
libraries and the model, hundreds of thousands, holds up a step for as long as many steps take.

And it need not look often: a step leaves thousands of objects to whoever reads its tokens, which
are in no cycle and go by themselves.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_NEW_OBJECTS = (
    20_000  # more than are gone again, until the next collection: less than a millisecond
)


def keep_all_that_exists() -> None:
    """Of a process whose objects live as long as it does."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, *gc.get_threshold()[1:])


@contextmanager
def unwatched_heap() -> Iterator[None]:
    """While the block runs, in somebody's own program, whose own settings are left."""
    if gc.get_freeze_count():
        yield
        return
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(max(before[0], _NEW_OBJECTS) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
