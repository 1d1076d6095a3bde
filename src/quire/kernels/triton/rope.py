"""From the product's q, k and v to what attention reads: head norms, positions and the KV write."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.selection import HeadsShape


@triton.jit
def _heads_kernel(
    q_out, k_cache, v_cache, qkv, cos, sin, slots, q_weight, k_weight,
    qkv_stride, q_eps, k_eps,
    H: tl.constexpr, K: tl.constexpr, D: tl.constexpr, D_PAD: tl.constexpr,
    ROTARY: tl.constexpr, INTERLEAVED: tl.constexpr, HAS_NORMS: tl.constexpr,
    HEADS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    column = tl.arange(0, D_PAD)
    inside = (head < H + 2 * K)[:, None] & (column < D)[None, :]
    is_query = (head < H)[:, None]
    is_value = (head >= H + K)[:, None]
    start = qkv + token * qkv_stride + head[:, None] * D
    stored = tl.load(start + column[None, :], mask=inside, other=0.0)
    values = stored.to(tl.float32)

    half: tl.constexpr = ROTARY // 2
    if INTERLEAVED:
        partner = column ^ 1
        pair = column // 2
        sign = tl.where(column % 2 == 0, -1.0, 1.0)
    else:
        partner = tl.where(column < half, column + half, column - half)
        pair = column % tl.maximum(half, 1)
        sign = tl.where(column < half, -1.0, 1.0)
    turns = column < ROTARY
    partners = tl.load(start + partner[None, :], mask=inside & turns[None, :], other=0.0).to(
        tl.float32
    )

    if HAS_NORMS:
        eps = tl.where(is_query, q_eps, k_eps)
        squares = tl.sum(tl.where(inside, values * values, 0.0), 1)[:, None]
        factor = tl.rsqrt(squares / D + eps)
        own = tl.where(
            is_query,
            tl.load(q_weight + column, mask=column < D, other=0.0).to(tl.float32)[None, :],
            tl.load(k_weight + column, mask=column < D, other=0.0).to(tl.float32)[None, :],
        )
        its = tl.where(
            is_query,
            tl.load(q_weight + partner, mask=turns, other=0.0).to(tl.float32)[None, :],
            tl.load(k_weight + partner, mask=turns, other=0.0).to(tl.float32)[None, :],
        )
        # rounded as a separate norm would have stored them
        values = (values * factor * own).to(stored.dtype).to(tl.float32)
        partners = (partners * factor * its).to(stored.dtype).to(tl.float32)

    c = tl.load(cos + token * half + pair, mask=turns, other=1.0)[None, :]
    s = tl.load(sin + token * half + pair, mask=turns, other=0.0)[None, :]
    turned = tl.where(turns[None, :], values * c + sign[None, :] * partners * s, values)
    turned = turned.to(stored.dtype)

    tl.store(
        q_out + (token * H + head[:, None]) * D + column[None, :], turned, mask=inside & is_query
    )
    slot = tl.load(slots + token)
    kv_head = tl.where(is_value, head[:, None] - H - K, head[:, None] - H)
    where = (slot * K + kv_head) * D + column[None, :]
    tl.store(k_cache + where, turned, mask=inside & (is_query == 0) & (is_value == 0))
    tl.store(v_cache + where, stored, mask=inside & is_value)


_HEADS = 8  # of one program


def store_heads(
    qkv: Tensor,
    cos: Tensor,
    sin: Tensor,
    kv_cache: Tensor,
    slot_mapping: Tensor,
    *,
    shape: HeadsShape,
    norms: tuple[Tensor, ...] | None = None,
) -> Tensor:
    """Norm (optional), turn and store: q [T, H, D] is returned, k and v go to their slots.

    ``qkv`` is [T, (H + 2 K) D]; ``cos`` and ``sin`` are float32 [T, 1, rotary_dim / 2]; ``norms``
    are the RMS weights [D] of q and k. Twins: `rms_norm`, `rotate_*` and `write_kv`.
    """
    heads, kv_heads, head_dim = shape.num_heads, shape.num_kv_heads, shape.head_dim
    q = torch.empty(len(qkv), heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    q_weight, k_weight = norms or (qkv, qkv)
    grid: Any = (len(qkv), triton.cdiv(heads + 2 * kv_heads, _HEADS))
    _heads_kernel[grid](
        q, kv_cache[0], kv_cache[1], qkv, cos, sin, slot_mapping, q_weight, k_weight,
        qkv.stride(0), *shape.eps,
        H=heads, K=kv_heads, D=head_dim, D_PAD=max(16, triton.next_power_of_2(head_dim)),
        ROTARY=shape.rotary_dim, INTERLEAVED=shape.is_interleaved, HAS_NORMS=norms is not None,
        HEADS=_HEADS, num_warps=4,
    )  # fmt: skip
    return q
