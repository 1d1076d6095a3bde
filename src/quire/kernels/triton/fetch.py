"""Fetches a step's inputs from pinned host memory, as the first kernel of a graph.

Not a copy, because the kernel after a copy from the host starts some 20 us later.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_LINE = 16  # words; sizes are multiples of it, so that 4 words are read at once
_WORDS = 512  # of one program: one read across the bus for each of its threads


@triton.jit(do_not_specialize=["num_lines"])
def _fetch_kernel(
    target, slots, turn, num_lines,
    SLOT_WORDS: tl.constexpr, NUM_SLOTS: tl.constexpr, LINE: tl.constexpr, WORDS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    await_inputs(DEPENDENT)
    slot = tl.load(turn, cache_modifier=".cg")
    place = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    is_wanted = place < num_lines * LINE
    # Volatile, as the host writes there between launches. Triton 3.6 ignores the modifier .cv.
    words = tl.load(slots + slot * SLOT_WORDS + place, mask=is_wanted, volatile=True)
    tl.store(target + place, words, mask=is_wanted)
    # The turn changes when every program has read it.
    tl.debug_barrier()
    if tl.atomic_add(turn + 1, 1, sem="acq_rel") == tl.num_programs(0) - 1:
        tl.store(turn + 1, 0)
        tl.store(turn, (slot + 1) % NUM_SLOTS)


def fetch(target: Tensor, slots: Tensor, turn: Tensor, num_words: int) -> None:
    """`reference.fetch.fetch`; ``slots`` may be pinned host memory."""
    assert num_words % _LINE == 0, num_words
    num_slots, slot_words = slots.shape
    launcher_of(_fetch_kernel, (triton.cdiv(num_words, _WORDS),))(
        target, slots, turn, num_words // _LINE,
        SLOT_WORDS=slot_words, NUM_SLOTS=num_slots, LINE=_LINE, WORDS=_WORDS, num_warps=4,
        **dependent_launch(),
    )  # fmt: skip
