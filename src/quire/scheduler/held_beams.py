"""Beams that have a row and no use for it before their siblings have come as far: who may have it
meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quire.scheduler.completion import Completion
from quire.scheduler.row_table import Index, RowTable


def held_beams(table: RowTable, running: Sequence[Completion], rows: Index) -> list[Completion]:
    """Those of ``running``, which have ``rows``."""
    if not np.count_nonzero(table.is_beam[rows]):
        return []
    return [completion for completion in running if completion.is_held]


def who_makes_way(completion: Completion, held: Sequence[Completion]) -> Completion | None:
    """The last beam that waits for this sibling, or whose turn comes behind it."""
    for beam in reversed(held):
        if beam.request is completion.request or completion.queue_key < beam.queue_key:
            return beam
    return None
