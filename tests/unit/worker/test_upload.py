"""Uploader: arrays arrive whole, wide and apart."""

from __future__ import annotations

import numpy as np
import torch

from quire.worker.upload import Uploader


def test_arrays_of_any_integer_type_and_length_arrive_as_int64() -> None:
    arrays = [np.asarray([1, 2], np.int32), np.asarray([], np.int32), np.asarray([2**40])]
    tensors = Uploader(torch.device("cpu"))(arrays)
    assert [tensor.tolist() for tensor in tensors] == [[1, 2], [], [2**40]]
    assert {tensor.dtype for tensor in tensors} == {torch.int64}
