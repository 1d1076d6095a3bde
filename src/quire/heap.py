"""What the garbage collector need not look through: a collection that visits the objects of the
libraries and the model, hundreds of thousands, holds up a step for as long as many steps take.

And it need not look often: a step leaves thousands of objects to whoever reads its tokens, which
are in no cycle and go by themselves.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# That have come and not gone since one collection, before the next: to look through them takes less
# than a millisecond.
_NEW_OBJECTS = 20_000


def keep_all_that_exists() -> None:
    """Of a process whose objects live as long as it does."""
    gc.collect()
    gc.freeze()
    _collect_rarely()


@contextmanager
def unwatched_heap() -> Iterator[None]:
    """While the block runs, in somebody's own program, whose own settings are left."""
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
    new, *others = gc.get_threshold()
    gc.set_threshold(max(new, _NEW_OBJECTS) if new else 0, *others)
