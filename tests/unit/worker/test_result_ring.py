"""ResultRing: every step's tokens reach the host, whenever they are read."""

from __future__ import annotations

import numpy as np
import torch

from quire.kernels.reference.deliver import deliver
from quire.kernels.reference.fetch import fetch
from quire.worker.input_ring import InputRing
from quire.worker.result_ring import Delivered, ResultRing
from quire.worker.step_graphs import NO_ROWS
from quire.worker.step_timeout import StepLabel, StepTimeout

CPU = torch.device("cpu")
MAX_ROWS = 3
LABEL = StepLabel(plan=NO_ROWS)


class Steps:
    """Steps that deliver tokens, behind a fetch as graphs do it."""

    def __init__(self, num_slots: int) -> None:
        self.of_rows = torch.zeros(5, 9, dtype=torch.int32)
        self.inputs = InputRing(num_slots=num_slots, num_bytes=64, fetch=fetch, device=CPU)
        self.results = ResultRing(
            self.inputs, max_rows=MAX_ROWS, of_rows=self.of_rows, deliver=deliver
        )

    def run(self, tokens: list[int], rows: list[int], lengths: list[int]) -> Delivered:
        self.inputs.open()
        self.inputs.enqueue_fetch(64)
        self.results.enqueue(torch.tensor(tokens), torch.tensor(rows), torch.tensor(lengths))
        return self.results.take(self.inputs.confirm(), len(tokens))


def read(delivered: Delivered) -> list[int]:
    found: np.ndarray = delivered.read(StepTimeout(0), LABEL)
    assert found.dtype == np.int32
    return found.tolist()  # type: ignore[no-any-return]


def test_tokens_reach_their_rows_and_the_host() -> None:
    steps = Steps(2)
    delivered = steps.run([7, 8], [3, 1], [4, 0])
    assert read(delivered) == [7, 8]
    assert steps.of_rows[3, 4] == 7 and steps.of_rows[1, 0] == 8
    assert steps.of_rows.count_nonzero() == 2


def test_results_that_are_read_late_are_those_of_their_own_step() -> None:
    """Also when their slots are used again before anybody has read them."""
    steps = Steps(3)
    in_flight = [steps.run([10 * n, 10 * n + 1], [0, 1], [n, n]) for n in range(8)]
    assert [read(one) for one in in_flight] == [[10 * n, 10 * n + 1] for n in range(8)]


def test_a_result_stays_what_it_was() -> None:
    steps = Steps(1)
    first = steps.run([1, 2, 3], [0, 1, 2], [0, 0, 0])
    assert read(first) == [1, 2, 3]
    steps.run([4, 5, 6], [0, 1, 2], [1, 1, 1])
    assert read(first) == [1, 2, 3]


def test_a_step_that_failed_takes_no_other_steps_slot() -> None:
    steps = Steps(3)
    before = steps.run([1], [0], [0])
    steps.inputs.open()  # it raises before its end
    after = steps.run([2], [0], [1])
    assert (read(before), read(after)) == ([1], [2])
