"""InputRing: every fetch takes what was sent last, whatever happened in between."""

from __future__ import annotations

import pytest
import torch

from quire.kernels.reference.fetch import fetch
from quire.worker.input_ring import InputRing

NUM_BYTES = 100


def ring_of(num_slots: int) -> InputRing:
    return InputRing(
        num_slots=num_slots, num_bytes=NUM_BYTES, fetch=fetch, device=torch.device("cpu")
    )


def send(ring: InputRing, value: int) -> int:
    slot = ring.open()
    ring.slots[slot][:] = value
    return slot


@pytest.mark.parametrize("num_slots", [1, 2, 4])
def test_slots_take_turns(num_slots: int) -> None:
    ring = ring_of(num_slots)
    used = []
    for value in range(9):
        used.append(send(ring, value))
        ring.fetch(NUM_BYTES)
        assert set(ring.memory[:NUM_BYTES].tolist()) == {value}
    assert used == [value % num_slots for value in range(9)]


def test_no_more_is_fetched_than_was_asked_for() -> None:
    ring = ring_of(2)
    send(ring, 1)
    ring.fetch(NUM_BYTES)
    send(ring, 2)
    ring.fetch(64)
    assert ring.memory[:NUM_BYTES].tolist() == [2] * 64 + [1] * (NUM_BYTES - 64)


@pytest.mark.parametrize("has_run", [False, True])
def test_the_turn_is_right_after_a_step_that_failed(has_run: bool) -> None:
    """Before its fetch was enqueued, or after."""
    ring = ring_of(3)
    failed = send(ring, 1)
    if has_run:
        ring.enqueue_fetch(NUM_BYTES)
    for value in (2, 3, 4):
        slot = send(ring, value)
        assert value > 2 or slot != failed, "the device may still read it"
        ring.fetch(NUM_BYTES)
        assert set(ring.memory[:NUM_BYTES].tolist()) == {value}


def test_a_fetch_of_nothing_that_was_sent_is_an_error() -> None:
    ring = ring_of(2)
    with pytest.raises(AssertionError, match="nothing was sent"):
        ring.confirm()
    send(ring, 1)
    ring.fetch(NUM_BYTES)
    with pytest.raises(AssertionError, match="nothing was sent"):
        ring.confirm()
