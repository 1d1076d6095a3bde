"""Tokens that may not come yet: the twin of `kernels.reference.sampling.forbid_early`."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.sampling_table import SamplingTable
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.sampling_rows import MIN_TOKENS, NUM_PROMPT, read_integer


def forbid_early(
    logits: Tensor, rows: Tensor, lengths: Tensor, table: SamplingTable, early_ids: Tensor
) -> None:
    """`reference.sampling.forbid_early`: one program for each line of ``logits``."""
    launcher_of(_forbid_early, (len(rows),))(
        logits, rows, lengths, table.integers, early_ids,
        logits.stride(0), COUNT=early_ids.shape[1], num_warps=1,
    )  # fmt: skip


@triton.jit
def _forbid_early(logits, rows, lengths, integers, early_ids, stride, COUNT: tl.constexpr):
    line = tl.program_id(0)
    owner = tl.load(rows + line)
    num_output = tl.load(lengths + line) - read_integer(integers, owner, NUM_PROMPT)
    if num_output >= read_integer(integers, owner, MIN_TOKENS):
        return
    tokens = tl.load(early_ids + owner * COUNT + tl.arange(0, COUNT))
    forbidden = tl.full((COUNT,), -float("inf"), logits.dtype.element_ty)
    tl.store(logits + line.to(tl.int64) * stride + tokens, forbidden, mask=tokens >= 0)
