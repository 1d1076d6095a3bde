"""Copies a step's inputs from a ring of slots into fixed memory.

Whose turn it is stands on the device, so one captured graph serves all slots.
"""

from __future__ import annotations

from torch import Tensor


def fetch(target: Tensor, slots: Tensor, turn: Tensor, num_words: int) -> None:
    """Copy the first ``num_words`` words of slot ``turn[0]``, and advance ``turn[0]`` by one slot.

    ``target`` [W], ``slots`` [N, W] (where the host can write), ``turn`` [2], all int32; the second
    number of ``turn`` is 0 between calls. ``num_words`` must be a multiple of 16.
    """
    words = slots[:, :num_words].index_select(0, turn[:1])
    target[:num_words].copy_(words[0])
    turn[:1].add_(1).remainder_(len(slots))
