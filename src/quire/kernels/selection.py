"""Which kernels a device gets, as one set: layers ask once, when they load their weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Protocol

import torch
from torch import Tensor

from quire.kernels.shapes import RMS, DecodeRows, HeadsShape

logger = logging.getLogger(__name__)


# (qkv [T, (H + 2 K) D], cos, sin [T, 1, rotary_dim / 2], kv_cache, slots [T]) -> q [T, H, D]
StoreHeads = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
# The function for heads of a shape; the weights are those of q's and k's RMS norms, if any.
MakeStoreHeads = Callable[[HeadsShape, tuple[Tensor, ...] | None], StoreHeads]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kernels:
    """Functions of the same meaning for every device; `reference` defines them."""

    rms_norm: Callable[[Tensor, Tensor, float], Tensor]
    layer_norm: Callable[[Tensor, Tensor | None, Tensor | None, float], Tensor]
    gated_activation: Callable[[str], Callable[[Tensor], Tensor]]  # of an activation's name
    # (positions [T], frequencies [D / 2], scale) -> cos, sin, float32 [T, 1, D / 2]
    rope_angles: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
    store_heads: MakeStoreHeads | None  # None: there is no fused kernel


def prepare(device: torch.device) -> None:
    """To be called before any kernel is compiled."""
    if device.type == "cuda":
        from quire.kernels.triton import kernel_cache

        kernel_cache.choose_folder()


@lru_cache
def kernels_for(device: torch.device) -> Kernels:
    """Triton kernels on a GPU, C++ on a CPU; torch operations where there are none of these."""
    if device.type == "cuda":
        return _triton()
    from quire.kernels.cpp import library

    return _reference() if library.why_not() else _cpp()


def _reference() -> Kernels:
    from quire.kernels.reference import activation, norm, rope

    return Kernels(
        rms_norm=norm.rms_norm,
        layer_norm=norm.layer_norm,
        gated_activation=activation.gated,
        rope_angles=rope.rope_angles,
        store_heads=None,
    )


def _cpp() -> Kernels:
    from quire.kernels.cpp import heads, rows

    return replace(
        _reference(),
        rms_norm=rows.rms_norm,
        gated_activation=rows.gated,
        store_heads=lambda shape, norms: partial(heads.store_heads, shape=shape, norms=norms),
    )


def _triton() -> Kernels:
    from quire.kernels.triton import activation, norm, rope

    return Kernels(
        rms_norm=norm.rms_norm,
        layer_norm=norm.layer_norm,
        gated_activation=activation.gated,
        rope_angles=rope.rope_angles,
        store_heads=lambda shape, norms: partial(rope.store_heads, shape=shape, norms=norms),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class OneLine:
    """A GPU's products of one line x [1, K], fused with the operations before and after them."""

    # (x, weight [N, K], bias, norm of x) -> [1, N]
    product: Callable[[Tensor, Tensor, Tensor | None, RMS | None], Tensor]
    # (x, h [1, N], weight, bias): h += product
    add_product: Callable[[Tensor, Tensor, Tensor, Tensor | None], None]
    # (x, weight [2 N, K], bias, norm, activation) -> activation(gate) * up [1, N]
    gated_product: Callable[[Tensor, Tensor, Tensor | None, RMS | None, str], Tensor]

    def suits(self, lines: int) -> bool:
        return lines == 1


@lru_cache
def one_line() -> OneLine:
    from quire.kernels.triton import gemv

    return OneLine(
        product=gemv.gemv,
        add_product=gemv.add_gemv,
        gated_product=gemv.gated_gemv,
    )


class MoreLines(Protocol):
    """A GPU's products of several lines with one weight, gated or not."""

    def suits(self, lines: int) -> bool:
        """Whether this is the fastest way to multiply so many lines."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, K] -> [T, N]; activation(gate) * up, [T, N / 2], where there is an activation."""
        ...

    def add_to(self, x: Tensor, h: Tensor) -> None:
        """h [T, N] += product."""
        ...


def more_lines(
    weight: Tensor, bias: Tensor | None, activation: str | None, room: int = 0
) -> MoreLines | None:
    """None where only torch's product is available.

    ``room``: bytes of shared memory that a block of the kernel after the product takes. Where the
    product leaves it free, that kernel can begin sooner.
    """
    from quire.kernels.cuda.availability import why_not

    if weight.device.type != "cuda" or why_not(weight, bias, gated=activation is not None):
        return None
    from quire.kernels.cuda.product import HopperProduct
    from quire.kernels.triton.activation import NAMES

    kind = None if activation is None else NAMES.index(activation)
    return HopperProduct(weight, bias, kind, room)


class BestToken(Protocol):
    """A GPU's argmax of the products of several lines with one weight, which are not written."""

    def suits(self, lines: int) -> bool:
        """Whether this is the fastest way for so many lines."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """x [T, K] -> the column of the largest product [T] int64, of equal ones the first."""
        ...


def best_token(weight: Tensor) -> BestToken | None:
    """None where the product has to be written."""
    from quire.kernels.cuda.availability import why_not

    if weight.device.type != "cuda" or why_not(weight, None, gated=False):
        return None
    from quire.kernels.cuda.best_column import BestColumn

    return BestColumn(weight)


class AttendRows(Protocol):
    """A GPU's attention for rows with one query each, `StoreHeads` included, in one launch."""

    @property
    def block_bytes(self) -> int:
        """Bytes of shared memory that one block takes in a step of many rows."""
        ...

    def is_usable(self) -> bool:
        """False where the kernel could not be compiled or loaded, and during a rehearsal."""
        ...

    def __call__(
        self,
        qkv: Tensor,
        cos: Tensor,
        sin: Tensor,
        kv_cache: Tensor,
        slots: Tensor,
        rows: DecodeRows,
    ) -> Tensor:
        """Arguments as of `StoreHeads`, for the rows -> attention's result [R, H, D]."""
        ...


def attend_rows(
    shape: HeadsShape,
    norms: tuple[Tensor, ...] | None,
    *,
    scale: float,
    block_size: int,
    dtype: torch.dtype,
    device: torch.device,
) -> AttendRows | None:
    """None where `StoreHeads` and attention have to be two kernels."""
    from quire.kernels.cuda import availability

    if device.type != "cuda":
        return None
    if reasons := availability.why_not_rows(shape, dtype, block_size):
        logger.debug("a decode step is two kernels a layer: %s", "; ".join(reasons))
        return None
    from quire.kernels.cuda.decode_attention import DecodeAttention

    return DecodeAttention(
        shape, norms, scale=scale, block_size=block_size, dtype=dtype, device=device
    )
