"""Every code of 8 bits means what torch says."""

from __future__ import annotations

import pytest
import torch

from quire.kernels.cpu.eight_bits import widened


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("fp8", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_every_code_is_widened_as_by_torch(fp8: torch.dtype, dtype: torch.dtype) -> None:
    values = torch.arange(256).to(torch.uint8).view(fp8).view(4, 64)[:, torch.randperm(64)]
    found = widened(values, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found, values.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_wide_values_stay_as_they_are() -> None:
    values = torch.randn(3)
    assert widened(values, torch.float32) is values
