"""What kernels of every kind take apart from plain tensors. Knows no kernel and no device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

RMS = tuple[Tensor, float]  # weight and eps of an RMS norm


@dataclass(frozen=True, kw_only=True, slots=True)
class HeadsShape:
    """The heads of one attention layer, as a fused kernel is made for them."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rotary_dim: int  # how many values of a head are turned, from the first on
    is_interleaved: bool  # pairs are (2i, 2i + 1), else (i, i + rotary_dim / 2)
    eps: tuple[float, float]  # of the norms of q and k


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodeRows:
    """R rows with one query each."""

    block_table: Tensor  # [R, B] int32
    seq_lens: Tensor  # [R] int32, 1 or more
    order: Tensor  # [R] int32, the rows in the order in which to begin them: the longest first
