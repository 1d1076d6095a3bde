"""A step's inputs from the slot of a ring whose turn it is, into fixed memory.

Nothing but the size is the host's to say, so one captured graph serves all slots.
"""

from __future__ import annotations

from torch import Tensor


def fetch(target: Tensor, slots: Tensor, turn: Tensor, num_words: int) -> None:
    """Copy the first ``num_words`` of the slot ``turn[0]`` and give the turn to the slot after it.

    ``target`` [W], ``slots`` [N, W] (where the host can write), ``turn`` [2], all int32; the second
    number of ``turn`` is 0 between calls. ``num_words`` must be a multiple of 16.
    """
    words = slots[:, :num_words].index_select(0, turn[:1])
    target[:num_words].copy_(words[0])
    turn[:1].add_(1).remainder_(len(slots))
