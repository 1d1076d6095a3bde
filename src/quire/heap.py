"""What the garbage collector need not look through: a collection that visits the objects of the
libraries and the model, hundreds of thousands, holds up a step for as long as many steps take.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def keep_all_that_exists() -> None:
    """Of a process whose objects live as long as it does."""
    gc.collect()
    gc.freeze()


@contextmanager
def unwatched_heap() -> Iterator[None]:
    """While the block runs, in somebody's own program: what it has frozen by itself stays so."""
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
