"""Rotary positions: the angles of a step; and in one kernel all that q, k and v need between their
product and attention: norms of heads, rotation and the write to the KV cache."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.shapes import HeadsShape
from quire.kernels.triton.launch import await_inputs, await_then_release, dependent_launch

_HEADS = 8  # of one program
_WARPS = 4
_TOKENS = 4  # whose angles one program computes


@triton.jit(do_not_specialize=["num_tokens"])
def _angles_kernel(
    cos, sin, positions, frequencies, num_tokens, scale,
    HALF: tl.constexpr, HALF_PAD: tl.constexpr, TOKENS: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)[:, None]
    place = tl.arange(0, HALF_PAD)[None, :]
    frequency = tl.load(frequencies + place, mask=place < HALF, other=0.0)
    # layers' kernels read a step's lengths and slots before they wait: those are written by now
    await_then_release(DEPENDENT)
    position = tl.load(positions + token, mask=token < num_tokens, other=0).to(tl.float32)
    angle = position * frequency
    inside = (token < num_tokens) & (place < HALF)
    tl.store(cos + token.to(tl.int64) * HALF + place, tl.cos(angle) * scale, mask=inside)
    tl.store(sin + token.to(tl.int64) * HALF + place, tl.sin(angle) * scale, mask=inside)


def rope_angles(positions: Tensor, frequencies: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """`reference.rope.rope_angles`: float32 [T, 1, D / 2] of positions [T]."""
    num_tokens, half = len(positions), len(frequencies)
    cos = torch.empty(num_tokens, 1, half, dtype=torch.float32, device=positions.device)
    sin = torch.empty_like(cos)
    launcher_of(_angles_kernel, (triton.cdiv(num_tokens, _TOKENS),))(
        cos, sin, positions, frequencies, num_tokens, scale,
        HALF=half, HALF_PAD=triton.next_power_of_2(half), TOKENS=_TOKENS,
        num_warps=1, **dependent_launch(),
    )  # fmt: skip
    return cos, sin


@triton.jit
def _head_columns(part, place, HALF: tl.constexpr, INTERLEAVED: tl.constexpr):
    """The column in its head of value ``place`` of ``part``; pairs that turn are parts 0 and 1."""
    if INTERLEAVED:
        return tl.where(part < 2, 2 * place + part, part * HALF + place)
    return part * HALF + place


# A group's slots begin anywhere in those of all groups; alignment must not cause another compile.
@triton.jit(do_not_specialize_on_alignment=["slots"])
def _heads_kernel(
    q_out, k_cache, v_cache, qkv, cos, sin, slots, q_weight, k_weight,
    qkv_stride, q_eps, k_eps,
    H: tl.constexpr, K: tl.constexpr, D: tl.constexpr,
    HALF: tl.constexpr, HALF_PAD: tl.constexpr, PARTS: tl.constexpr,
    INTERLEAVED: tl.constexpr, HAS_NORMS: tl.constexpr, HEADS: tl.constexpr,
    LARGEST: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    # A head is PARTS parts of HALF values, so that a value and its partner are at the same place of
    # two parts, and every access is contiguous. All masks have the full shape: so all loads have
    # it, too, and no value has to move between threads.
    token = tl.program_id(0).to(tl.int64)
    part = tl.arange(0, PARTS)[:, None, None]
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[None, :, None]
    place = tl.arange(0, HALF_PAD)[None, None, :]
    column = _head_columns(part, place, HALF, INTERLEAVED)
    partner = _head_columns(tl.where(part < 2, 1 - part, part), place, HALF, INTERLEAVED)
    is_column = (place < HALF) & (column < D)
    inside = is_column & (head < H + 2 * K)
    is_query = head < H
    is_value = head >= H + K
    has_position = is_column & (head < H + K)
    if HAS_NORMS:
        weight = tl.where(is_query, q_weight, k_weight)
        own = tl.load(weight + column, mask=has_position, other=0.0).to(tl.float32)
        its = tl.load(weight + partner, mask=has_position, other=0.0).to(tl.float32)
    await_inputs(DEPENDENT)

    slot = tl.load(slots + token)
    turns = has_position & (part < 2)
    c = tl.load(cos + token * HALF + place, mask=turns, other=1.0)
    s = tl.load(sin + token * HALF + place, mask=turns, other=0.0)
    start = qkv + token * qkv_stride + head * D
    stored = tl.load(start + column, mask=inside, other=0.0)
    values = stored.to(tl.float32)
    partners = tl.load(start + partner, mask=turns, other=0.0).to(tl.float32)
    if HAS_NORMS:
        squares = tl.sum(tl.sum(values * values, 2), 0)[None, :, None]
        factor = tl.rsqrt(squares / D + tl.where(is_query, q_eps, k_eps))
        # rounded as if the norm had been stored by a kernel of its own
        values = (values * factor * own).to(stored.dtype).to(tl.float32)
        partners = (partners * factor * its).to(stored.dtype).to(tl.float32)
    turned = (values * c + tl.where(part == 0, -partners, partners) * s).to(stored.dtype)

    tl.store(q_out + (token * H + head) * D + column, turned, mask=inside & is_query)
    kv_head = tl.where(is_value, head - H - K, head - H)
    where = (slot * K + kv_head) * D + column
    if LARGEST > 0:  # of a cache of 8 bits
        turned = tl.clamp(turned.to(tl.float32), -LARGEST, LARGEST, tl.PropagateNan.ALL)
        stored = tl.clamp(stored.to(tl.float32), -LARGEST, LARGEST, tl.PropagateNan.ALL)
    dtype: tl.constexpr = k_cache.dtype.element_ty
    tl.store(k_cache + where, turned.to(dtype), mask=inside & (is_query == 0) & (is_value == 0))
    tl.store(v_cache + where, stored.to(dtype), mask=inside & is_value)


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
    half = shape.rotary_dim // 2
    cached = kv_cache.dtype
    q = torch.empty(len(qkv), heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    q_weight, k_weight = norms or (qkv, qkv)
    grid: Any = (len(qkv), triton.cdiv(heads + 2 * kv_heads, _HEADS))
    launcher_of(_heads_kernel, grid)(
        q, kv_cache[0], kv_cache[1], qkv, cos, sin, slot_mapping, q_weight, k_weight,
        qkv.stride(0), *shape.eps,
        H=heads, K=kv_heads, D=head_dim,
        HALF=half, HALF_PAD=triton.next_power_of_2(half),
        PARTS=max(2, triton.next_power_of_2(triton.cdiv(head_dim, half))),
        INTERLEAVED=shape.is_interleaved, HAS_NORMS=norms is not None,
        HEADS=_HEADS, LARGEST=torch.finfo(cached).max if cached.itemsize == 1 else 0.0,
        num_warps=_WARPS, **dependent_launch(),
    )  # fmt: skip
    return q
