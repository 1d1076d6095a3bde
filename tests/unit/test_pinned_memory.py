"""What is uploaded arrives; on a CPU nothing is copied."""

from __future__ import annotations

import numpy as np
import torch

from quire.pinned_memory import pinned, upload
from tests.unit.kernels.twins import DEVICE

CPU = torch.device("cpu")


def test_an_array_arrives_with_its_dtype() -> None:
    values = np.array([[1, -1], [2**31 - 1, -(2**31)]], dtype=np.int32)
    there = upload(values, DEVICE)
    assert there.device.type == DEVICE.type and there.dtype == torch.int32
    assert there.tolist() == values.tolist()


def test_on_a_cpu_nothing_is_pinned() -> None:
    values = torch.arange(3)
    assert pinned(values, CPU) is values
    array = values.numpy()
    assert upload(array, CPU).data_ptr() == array.ctypes.data
