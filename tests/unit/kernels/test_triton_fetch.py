"""Fetching a step's inputs against its reference twin."""

from __future__ import annotations

import pytest
import torch

from quire.kernels.reference import fetch as reference
from quire.kernels.triton import fetch as triton_kernels
from quire.kernels.triton.fetch import _WORDS
from tests.unit.kernels.twins import DEVICE

NUM_SLOTS = 3
SLOT_WORDS = 3 * _WORDS + 64


@pytest.mark.parametrize("sizes", [[16] * 7, [SLOT_WORDS] * 4, [16, SLOT_WORDS, 32, _WORDS, 528]])
def test_each_fetch_takes_the_next_slot(sizes: list[int]) -> None:
    """What lies behind the size stays; what the host wrote since is seen."""
    torch.manual_seed(0)
    slots = torch.randint(1 << 30, (NUM_SLOTS, SLOT_WORDS), dtype=torch.int32)
    if DEVICE.type == "cuda":
        slots = slots.pin_memory()
    found = torch.full((SLOT_WORDS,), -1, dtype=torch.int32, device=DEVICE)
    wanted = torch.full((SLOT_WORDS,), -1, dtype=torch.int32)
    turns = torch.zeros(2, dtype=torch.int32, device=DEVICE), torch.zeros(2, dtype=torch.int32)
    for size in sizes:
        triton_kernels.fetch(found, slots, turns[0], size)
        reference.fetch(wanted, slots, turns[1], size)
        assert torch.equal(found.cpu(), wanted)
        assert torch.equal(turns[0].cpu(), turns[1])
        slots += 1
    assert turns[1].tolist() == [len(sizes) % NUM_SLOTS, 0]
