"""Bit masks on a GPU are those of the definition."""

from __future__ import annotations

import pytest
import torch

from quire.kernels.reference.bitmask import apply_bitmask as reference
from quire.kernels.triton.bitmask import apply_bitmask
from tests.unit.kernels.twins import DEVICE, DTYPES, random


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("vocab_size", [31, 97, 4096, 4100])
def test_bit_masks_are_their_twins(dtype: torch.dtype, vocab_size: int) -> None:
    torch.manual_seed(0)
    logits = random(6, vocab_size + 3, dtype=dtype)[:, :vocab_size]  # lines apart
    words = -(-vocab_size // 32)
    masks = torch.randint(-(2**31), 2**31, (4, words), dtype=torch.int32, device=DEVICE)
    masks[1], masks[2] = 0, -1
    lines = torch.tensor([2, -1, 0, 3, 1, -1], dtype=torch.int32, device=DEVICE)
    before, wanted = logits.clone(), logits.clone()
    reference(wanted, lines, masks)
    apply_bitmask(logits, lines, masks)
    assert torch.equal(logits, wanted)
    assert torch.equal(logits[[0, 1, 5]], before[[0, 1, 5]])
    assert torch.isneginf(logits[4]).all()
    allowed = [(int(masks[0, t // 32]) >> (t % 32)) & 1 for t in range(vocab_size)]
    assert torch.isfinite(logits[2]).tolist() == [bool(one) for one in allowed]
