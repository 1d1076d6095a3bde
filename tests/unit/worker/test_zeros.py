"""lazy_zeros: zeros of the right shape and type, aligned."""

from __future__ import annotations

import pytest
import torch

from quire.worker.zeros import ALIGNMENT, lazy_zeros


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32])
def test_zeros_have_shape_and_dtype_and_are_aligned_and_writable(dtype: torch.dtype) -> None:
    zeros = lazy_zeros((2, 3, 5), dtype, torch.device("cpu"))
    assert torch.equal(zeros, torch.zeros(2, 3, 5, dtype=dtype))
    assert zeros.data_ptr() % ALIGNMENT == 0
    zeros[1, 2, 4] = 7
    assert zeros.sum().item() == 7


def test_zeros_of_another_device_are_made_there() -> None:
    zeros = lazy_zeros((2, 3), torch.float16, torch.device("meta"))
    assert (zeros.device.type, tuple(zeros.shape), zeros.dtype) == ("meta", (2, 3), torch.float16)
