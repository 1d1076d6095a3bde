"""Paged attention of rows with one query each."""

from __future__ import annotations

import ctypes
from ctypes import c_float, c_int64, c_void_p
from dataclasses import dataclass

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

    @property
    def pointers(self) -> tuple[int, int, int, int]:
        """What stands for the prefixes in `_AttendArgs`."""
        tensors = (self.members, self.first_member, self.lens)
        members, first_member, lens = (tensor.data_ptr() for tensor in tensors)
        return members, first_member, lens, len(self.lens)


NO_PREFIXES = (None, None, None, 0)


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
    assert q.is_contiguous() and out.is_contiguous() and block_table.stride(1) == 1
    num_rows, num_heads, head_dim = q.shape
    function("attend_rows", q.dtype)(
        _AttendArgs(
            q.data_ptr(), out.data_ptr(), kv_cache.data_ptr(), block_table.data_ptr(),
            seq_lens.data_ptr(), pointer(alibi_slopes), pointer(sinks), Cache.of(kv_cache),
            block_table.stride(0), num_rows, num_heads, kv_cache.shape[3], head_dim,
            value_dim or head_dim, window or 0, torch.get_num_threads(),
            *(NO_PREFIXES if prefixes is None else prefixes.pointers), scale, soft_cap or 0.0,
        )
    )  # fmt: skip
