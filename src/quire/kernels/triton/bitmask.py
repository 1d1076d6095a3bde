"""Bit masks over the vocabulary: the twin of `kernels.reference.bitmask`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of

BLOCK = 4096  # tokens of one program


def apply_bitmask(logits: Tensor, lines: Tensor, masks: Tensor) -> None:
    """`reference.bitmask.apply_bitmask`: set ``logits`` [R, V] of forbidden tokens to -inf.

    Programs of rows without a mask end at once, so a captured launch serves any rows.
    """
    num_rows, vocab_size = logits.shape
    grid = (num_rows, triton.cdiv(vocab_size, BLOCK))
    launcher_of(_apply_bitmask, grid)(
        logits, lines, masks, vocab_size, logits.stride(0), masks.stride(0), BLOCK=BLOCK
    )


@triton.jit(do_not_specialize=["vocab_size"])
def _apply_bitmask(
    logits_ptr,
    lines_ptr,
    masks_ptr,
    vocab_size,
    logits_stride,
    masks_stride,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    line = tl.load(lines_ptr + row)
    if line < 0:
        return
    tokens = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_token = tokens < vocab_size
    words = tl.load(
        masks_ptr + line.to(tl.int64) * masks_stride + tokens // 32, mask=is_token, other=-1
    )
    is_forbidden = ((words >> (tokens % 32)) & 1) == 0
    places = logits_ptr + row.to(tl.int64) * logits_stride + tokens
    forbidden = tl.full((BLOCK,), -float("inf"), logits_ptr.dtype.element_ty)
    tl.store(places, forbidden, mask=is_token & is_forbidden)
