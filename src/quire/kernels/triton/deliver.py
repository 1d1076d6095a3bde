"""Delivers the tokens that a step sampled, as the last kernel of a graph: to the end of their rows,
and to pinned host memory. A copy to the host would start some 6 us later."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_ROWS = 256  # of one program


@triton.jit(do_not_specialize=["num_rows", "width"])
def _deliver_kernel(
    token_ids, rows, lengths, of_rows, results, turn, num_rows, width,
    SLOT_WORDS: tl.constexpr, NUM_SLOTS: tl.constexpr, ROWS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    place = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = place < num_rows
    token = tl.load(token_ids + place, mask=is_row, other=0).to(tl.int32)
    row = tl.load(rows + place, mask=is_row, other=0)
    length = tl.load(lengths + place, mask=is_row, other=0)
    tl.store(of_rows + row * width + length, token, mask=is_row)
    slot = (tl.load(turn, cache_modifier=".cg") + NUM_SLOTS - 1) % NUM_SLOTS
    tl.store(results + slot * SLOT_WORDS + place, token, mask=is_row)


def deliver(
    token_ids: Tensor, rows: Tensor, lengths: Tensor, of_rows: Tensor, results: Tensor, turn: Tensor
) -> None:
    """`reference.deliver.deliver`, but the rest of the slot behind the tokens is left as it was.

    ``results`` may be pinned host memory.
    """
    num_slots, slot_words = results.shape
    launcher_of(_deliver_kernel, (triton.cdiv(len(token_ids), _ROWS),))(
        token_ids, rows, lengths, of_rows, results, turn, len(token_ids), of_rows.shape[1],
        SLOT_WORDS=slot_words, NUM_SLOTS=num_slots, ROWS=_ROWS, num_warps=4,
        **dependent_launch(),
    )  # fmt: skip
