"""Norms of heads, rotary positions and the write to the KV cache, at once."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from quire.kernels.cpp.library import Cache, function, pointer
from quire.kernels.shapes import HeadsShape


class _HeadsArgs(ctypes.Structure):
    """``HeadsArgs`` of heads.cpp."""

    _fields_ = [
        ("qkv", c_void_p), ("q", c_void_p), ("cache", c_void_p), ("cos", c_void_p),
        ("sin", c_void_p), ("slots", c_void_p), ("q_weight", c_void_p), ("k_weight", c_void_p),
        ("places", Cache), ("num_tokens", c_int64), ("num_heads", c_int64),
        ("num_kv_heads", c_int64), ("head_dim", c_int64), ("rotary_dim", c_int64),
        ("is_interleaved", c_int64), ("num_threads", c_int64), ("q_eps", c_float),
        ("k_eps", c_float),
    ]  # fmt: skip


def store_heads(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    kv_cache: Tensor,
    slots: Tensor,
    *,
    shape: HeadsShape,
    norms: tuple[Tensor, ...] | None,
) -> Tensor:
    """`kernels.selection.StoreHeads` for heads of a shape; ``norms``: weights of q's and k's."""
    assert qkv.is_contiguous() and cos.is_contiguous() and sin.is_contiguous()
    q = qkv.new_empty(len(qkv), shape.num_heads, shape.head_dim)
    q_weight, k_weight = norms or (None, None)
    function("store_heads", qkv.dtype)(
        _HeadsArgs(
            qkv.data_ptr(), q.data_ptr(), kv_cache.data_ptr(), cos.data_ptr(), sin.data_ptr(),
            slots.data_ptr(), pointer(q_weight), pointer(k_weight), Cache.of(kv_cache),
            len(qkv), shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.rotary_dim,
            shape.is_interleaved, torch.get_num_threads(), *shape.eps,
        )
    )  # fmt: skip
    return q
