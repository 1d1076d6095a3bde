"""What every comparison of a Triton kernel with its reference twin needs.

bfloat16 is left out of the interpreter, which computes it wrongly; it is compared on a GPU.
"""

from __future__ import annotations

import torch

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DTYPES = [torch.float32, torch.float16] + ([torch.bfloat16] if DEVICE.type == "cuda" else [])
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


def random(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def assert_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    limit = TOLERANCE[found.dtype]
    error = (found.float() - wanted.float()).abs().max() / wanted.float().abs().max()
    assert error < limit, f"off by {error:.2e} of the largest value, allowed {limit:.0e}"
