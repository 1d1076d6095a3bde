"""Readbacks: what was read stays what it was, though the host memory is used again."""

from __future__ import annotations

import numpy as np
import torch

from quire.worker.readback import LANDING_BYTES, Readbacks
from quire.worker.step_graphs import NO_ROWS
from quire.worker.step_timeout import StepLabel, StepTimeout

LABEL = StepLabel(plan=NO_ROWS, is_graph=False)


def readbacks() -> Readbacks:
    return Readbacks(torch.device("cpu"), StepTimeout(0))


def test_tensors_of_any_shapes_and_types() -> None:
    tensors = [
        torch.arange(5),
        torch.arange(3, dtype=torch.int32),
        torch.rand(3, 7),
        torch.zeros(0, dtype=torch.int64),
        torch.arange(12).view(4, 3).t(),
    ]
    found = readbacks().start(tensors, LABEL).arrays()
    for array, tensor in zip(found, tensors, strict=True):
        assert torch.from_numpy(array).dtype == tensor.dtype
        np.testing.assert_array_equal(array, tensor.numpy())


def test_a_tensor_may_be_overwritten_once_the_readback_has_started() -> None:
    tensor = torch.arange(4)
    readback = readbacks().start([tensor], LABEL)
    tensor.zero_()
    assert readback.arrays()[0].tolist() == [0, 1, 2, 3]


def test_results_outlive_the_next_readbacks_whether_larger_or_smaller() -> None:
    owner = readbacks()
    results = []
    for value, length in enumerate((4, LANDING_BYTES, 2, 2 * LANDING_BYTES, 3)):
        first = owner.start([torch.full((length,), value)], LABEL)
        second = owner.start([torch.full((length,), -value)], LABEL)  # in flight together
        results.append((value, first.arrays()[0]))
        results.append((-value, second.arrays()[0]))
    for value, array in results:
        assert set(array.tolist()) == {value}
