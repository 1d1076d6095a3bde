"""Held beams: they have a row, which others may have until the beam's siblings have caught up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from quire.scheduler.completion import Completion
from quire.scheduler.row_table import Index, RowTable


def held_beams(table: RowTable, running: Sequence[Completion], rows: Index) -> list[Completion]:
    """The held beams among ``running``, completions that have ``rows``."""
    if not np.count_nonzero(table.is_beam[rows]):
        return []
    return [completion for completion in running if completion.is_held]


def who_makes_way(completion: Completion, held: Sequence[Completion]) -> Completion | None:
    """The last of the held beams that waits for ``completion``, its sibling, or comes after it in
    the queue; None: there is none."""
    for beam in reversed(held):
        if beam.request is completion.request or completion.queue_key < beam.queue_key:
            return beam
    return None
