"""Whether a machine and a weight can have the products of `product`; it is only imported then."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from quire.kernels import hopper

ROW_BYTES = 16  # the copy engine reads rows of multiples of that, and writers write as much at once
_DTYPES = (torch.bfloat16, torch.float16)
_FEWEST_COLUMNS = 32


def why_not(weight: Tensor, bias: Tensor | None, *, gated: bool) -> list[str]:
    """Every reason against products with this weight; ``gated``: with a gate of its halves."""
    return [*_why_not_here(), *_why_not_with(weight, bias, gated=gated)]


@cache
def _why_not_here() -> list[str]:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() != hopper.CAPABILITY:
        return ["the GPU is no Hopper"]
    if find_spec("cuda") is None or find_spec("cuda.bindings") is None:
        return ["cuda-bindings is not installed"]
    return []


def _why_not_with(weight: Tensor, bias: Tensor | None, *, gated: bool) -> list[str]:
    n, k = weight.shape
    reasons = []
    if weight.dtype not in _DTYPES:
        reasons.append(f"the weight is {weight.dtype}")
    elif n // (2 if gated else 1) * weight.element_size() % ROW_BYTES or n < _FEWEST_COLUMNS:
        reasons.append(f"the weight has {n} rows")
    elif k * weight.element_size() % ROW_BYTES:
        reasons.append(f"the weight has rows of {k} values")
    if not weight.is_contiguous() or weight.data_ptr() % ROW_BYTES:
        reasons.append("the weight is not contiguous and aligned")
    if bias is not None and (bias.dtype != weight.dtype or not bias.is_contiguous()):
        reasons.append("the bias is not contiguous or of another type than the weight")
    return reasons
