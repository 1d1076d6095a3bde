"""Norms of heads, rotary positions and the write to the KV cache, at once."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p

import torch
from torch import Tensor

from quire.kernels.cpp.library import Cache, function, pointer
from quire.kernels.reference.attention import write_kv
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
    if kv_cache.dtype != qkv.dtype:  # C++ has no 8 bits: through a cache of the step's own tokens
        own = qkv.new_empty(2, 1, len(qkv), shape.num_kv_heads, shape.head_dim)
        at = torch.arange(len(qkv))
        q = store_heads(qkv, cos, sin, own, at, shape=shape, norms=norms)
        write_kv(own[0, 0], own[1, 0], kv_cache, slots)
        return q
    assert qkv.is_contiguous() and cos.is_contiguous() and sin.is_contiguous()
    assert slots.is_contiguous() and slots.dtype == torch.int64 and kv_cache.dtype == qkv.dtype
    q = qkv.new_empty(len(qkv), shape.num_heads, shape.head_dim)
    q_weight, k_weight = norms or (None, None)
    q_eps, k_eps = shape.eps
    function("store_heads", qkv.dtype)(
        _HeadsArgs(
            qkv=pointer(qkv),
            q=pointer(q),
            cache=pointer(kv_cache),
            cos=pointer(cos),
            sin=pointer(sin),
            slots=pointer(slots),
            q_weight=pointer(q_weight),
            k_weight=pointer(k_weight),
            places=Cache.of(kv_cache),
            num_tokens=len(qkv),
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            rotary_dim=shape.rotary_dim,
            is_interleaved=shape.is_interleaved,
            num_threads=torch.get_num_threads(),
            q_eps=q_eps,
            k_eps=k_eps,
        )
    )
    return q
