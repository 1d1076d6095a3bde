"""Paged attention of rows with one query each."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from quire.kernels.cpp.library import Cache, function, pointer


class _AttendArgs(ctypes.Structure):
    """``AttendArgs`` of attention.cpp."""

    _fields_ = [
        ("q", c_void_p), ("out", c_void_p), ("cache", c_void_p), ("block_table", c_void_p),
        ("seq_lens", c_void_p), ("slopes", c_void_p), ("sinks", c_void_p), ("places", Cache),
        ("table_stride", c_int64), ("num_rows", c_int64), ("num_heads", c_int64),
        ("num_kv_heads", c_int64), ("head_dim", c_int64), ("value_dim", c_int64),
        ("window", c_int64), ("num_threads", c_int64), ("members", c_void_p),
        ("first_member", c_void_p), ("prefix_lens", c_void_p), ("num_prefixes", c_int64),
        ("scale", c_float), ("soft_cap", c_float),
    ]  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Prefixes:
    """Rows that begin with the same blocks, prefix after prefix."""

    members: Tensor  # [M] int64, rows; each in one prefix at most
    first_member: Tensor  # [N + 1] int64, each prefix's first place in `members`
    lens: Tensor  # [N] int64, keys; all rows of the prefix see them

    def args(self) -> dict[str, Any]:
        """What stands for the prefixes in `_AttendArgs`."""
        return {
            "members": pointer(self.members),
            "first_member": pointer(self.first_member),
            "prefix_lens": pointer(self.lens),
            "num_prefixes": len(self.lens),
        }


def attend_rows(
    q: Tensor,
    kv_cache: Tensor,
    block_table: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    alibi_slopes: Tensor | None = None,
    sinks: Tensor | None = None,
    value_dim: int | None = None,
    prefixes: Prefixes | None = None,
    out: Tensor,
) -> None:
    """`reference.attention.paged_attention` of q [R, H, D], a query a row, into ``out``.

    ``alibi_slopes`` and ``sinks`` are float32 [H]. ``prefixes`` are read once for all their rows,
    and there must be no window then. No slot is read that no query sees.
    """
    assert q.is_contiguous() and out.is_contiguous() and kv_cache.dtype == out.dtype == q.dtype
    assert block_table.stride(1) == seq_lens.stride(0) == 1
    assert block_table.dtype == seq_lens.dtype == torch.int32
    num_rows, num_heads, head_dim = q.shape
    function("attend_rows", q.dtype)(
        _AttendArgs(
            q=pointer(q),
            out=pointer(out),
            cache=pointer(kv_cache),
            block_table=pointer(block_table),
            seq_lens=pointer(seq_lens),
            slopes=pointer(alibi_slopes),
            sinks=pointer(sinks),
            places=Cache.of(kv_cache),
            table_stride=block_table.stride(0),
            num_rows=num_rows,
            num_heads=num_heads,
            num_kv_heads=kv_cache.shape[3],
            head_dim=head_dim,
            value_dim=value_dim or head_dim,
            window=window or 0,
            num_threads=torch.get_num_threads(),
            scale=scale,
            soft_cap=soft_cap or 0.0,
            **({} if prefixes is None else prefixes.args()),
        )
    )
