"""Delivering a step's tokens against its reference twin; `test_triton_fetch` compiles it."""

from __future__ import annotations

import pytest
import torch

from quire.kernels.reference import deliver as reference
from quire.kernels.triton import deliver as triton_kernels
from tests.unit.kernels.twins import DEVICE

NUM_SLOTS, MAX_ROWS, WIDTH = 3, 300, 17
NOTHING = -1


def memory(*shape: int) -> torch.Tensor:
    return torch.full(shape, NOTHING, dtype=torch.int32)


@pytest.mark.parametrize("counts", [[1, 1, 1, 1], [MAX_ROWS, 3, 257, 256]])
def test_tokens_reach_their_rows_and_the_slot_before_the_next(counts: list[int]) -> None:
    torch.manual_seed(0)
    found, wanted = memory(NUM_SLOTS, MAX_ROWS), memory(NUM_SLOTS, MAX_ROWS)
    if DEVICE.type == "cuda":
        found = found.pin_memory()
    of_rows = memory(MAX_ROWS + 1, WIDTH).to(DEVICE), memory(MAX_ROWS + 1, WIDTH)
    for step, count in enumerate(counts):
        tokens = torch.randint(1 << 20, (count,))
        rows = torch.randperm(MAX_ROWS)[:count]
        lengths = torch.randint(WIDTH, (count,))
        turn = torch.tensor([(step + 1) % NUM_SLOTS, 0], dtype=torch.int32)
        mine = (one.to(DEVICE) for one in (tokens, rows, lengths))
        triton_kernels.deliver(*mine, of_rows[0], found, turn.to(DEVICE))
        reference.deliver(tokens, rows, lengths, of_rows[1], wanted, turn)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        slot = step % NUM_SLOTS
        assert torch.equal(found[slot, :count], wanted[slot, :count])
        assert torch.equal(found[slot, :count], tokens.to(torch.int32))
        assert torch.equal(of_rows[0].cpu(), of_rows[1])
    assert (found[:, max(counts) :] == NOTHING).all()
