"""Whether a machine can have the kernels of this package, which are only imported then."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from quire.kernels import hopper
from quire.kernels.shapes import HeadsShape

ROW_BYTES = 16  # rows are multiples of it: the copy engine requires that, and stores are as wide
_DTYPES = (torch.bfloat16, torch.float16)
_FEWEST_COLUMNS = 32
# Limits of attention for rows with one query:
_HEAD_DIMS = (64, 128)
_MOST_QUERY_HEADS = 8  # per KV head
TILE_TOKENS = 16  # keys that are multiplied at once; a KV block must hold a multiple of them


def why_not(weight: Tensor, bias: Tensor | None, *, gated: bool) -> list[str]:
    """Every reason against `product` with this weight; ``gated``: its halves are gate and up."""
    return [*why_not_here(), *_why_not_with(weight, bias, gated=gated)]


def why_not_rows(shape: HeadsShape, dtype: torch.dtype, block_size: int) -> list[str]:
    """Every reason against `decode_attention` for these heads, keys and block size."""
    reasons = why_not_here().copy()
    if dtype not in _DTYPES:
        reasons.append(f"keys are {dtype}")
    if shape.head_dim not in _HEAD_DIMS:
        reasons.append(f"heads have {shape.head_dim} values")
    if shape.rotary_dim != shape.head_dim:
        reasons.append(f"{shape.rotary_dim} of {shape.head_dim} values of a head turn")
    if shape.is_interleaved:
        reasons.append("neighbouring values turn together")
    if shape.num_heads > _MOST_QUERY_HEADS * shape.num_kv_heads:
        reasons.append(f"{shape.num_heads} query heads share {shape.num_kv_heads} KV heads")
    if block_size % TILE_TOKENS:
        reasons.append(f"blocks of {block_size} tokens")
    return reasons


@cache
def why_not_here() -> list[str]:
    """Every reason against any of the kernels on this machine."""
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
