"""Bit masks over the vocabulary, by definition."""

from __future__ import annotations

import torch
from torch import Tensor


def apply_bitmask(logits: Tensor, lines: Tensor, masks: Tensor) -> None:
    """Set the ``logits`` [R, V] of forbidden tokens to -inf, in place.

    ``lines`` [R] int32 says which line of ``masks`` [N, ceil(V/32)] int32 a row has, -1: none. Bit
    ``t % 32`` of word ``t // 32`` is 1 where token t is allowed.
    """
    places = torch.nonzero(lines >= 0).squeeze(1)
    words = masks.index_select(0, lines.index_select(0, places).long())
    shifts = torch.arange(32, dtype=torch.int32, device=masks.device)
    bits = (words.unsqueeze(2) >> shifts) & 1
    allowed = bits.flatten(1)[:, : logits.shape[1]] != 0
    logits[places] = logits[places].masked_fill(~allowed, -torch.inf)
