"""Which tokens a row has used, and how often: counted anew in each step, from the row's own tokens.

So nothing has to be kept up to date while rows join, leave or are rewritten. The work is
proportional to the histories, not to the vocabulary: what was counted is cleared the same way. A
row's counts take 4 bytes per token of the vocabulary, so only as many rows as fit are done at once.
One bit per token tells whether it has a count at all; kernels read counts only where it is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.sampling_table import SamplingTable
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.sampling_rows import (
    EXACT,
    IN_PROMPT,
    NUM_PROMPT,
    is_penalised,
    load_logits,
    read_integer,
)

MAX_BYTES = 64 << 20
MAX_ROWS_AT_ONCE = 256
_BLOCK = 1024  # tokens, or logits, of one program at a time
_PROGRAMS = 8  # per row


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """The tokens that a step's rows have used; R counts places in the step, not rows' numbers."""

    seen: Tensor  # [R, V / 32] int32, a bit for each token
    counts: Tensor  # [R, V] int32: occurrences in the output, and the bit IN_PROMPT


@triton.jit(do_not_specialize=["width"])
def _count_kernel(
    seen, counts, token_ids, rows, lengths, reals, integers, width,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, PROGRAMS: tl.constexpr, CLEARS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    owner = tl.load(rows + row)
    if is_penalised(reals, owner):
        length = tl.load(lengths + row)
        num_prompt = read_integer(integers, owner, NUM_PROMPT)
        start = tl.program_id(1).to(tl.int64) * BLOCK
        while start < length:
            place = start + tl.arange(0, BLOCK)
            is_known = place < length
            token = tl.load(token_ids + owner * width + place, mask=is_known, other=0)
            count = counts + row.to(tl.int64) * SIZE + token
            word = seen + row * ((SIZE + 31) // 32) + token // 32
            if CLEARS:
                tl.store(count, 0, mask=is_known)
                tl.store(word, 0, mask=is_known)
            else:
                is_output = place >= num_prompt
                tl.atomic_add(count, 1, mask=is_known & is_output, sem="relaxed")
                tl.atomic_or(count, IN_PROMPT, mask=is_known & (place < num_prompt), sem="relaxed")
                tl.atomic_or(word, (1 << (token % 32)), mask=is_known, sem="relaxed")
            start += PROGRAMS * BLOCK


@triton.jit
def _penalise_kernel(
    logits, stride, rows, reals, seen, counts, SIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    owner = tl.load(rows + row)
    if is_penalised(reals, owner):
        place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        values = load_logits(
            logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=True
        )
        tl.store(logits + row.to(tl.int64) * stride + place, values, mask=place < SIZE)


class History:
    """Owns the memory for the counts, which is all zeros between uses."""

    def __init__(
        self, max_rows: int, vocab_size: int, token_ids: Tensor, table: SamplingTable
    ) -> None:
        """``token_ids`` [rows, width] int32, prompt and output of all rows; read only."""
        fitting = max(1, MAX_BYTES // (4 * vocab_size))
        self.rows_at_once = min(max_rows, MAX_ROWS_AT_ONCE, fitting)
        self._token_ids, self._table, self._vocab_size = token_ids, table, vocab_size
        int32 = partial(torch.zeros, dtype=torch.int32, device=token_ids.device)
        self._room = Counts(
            seen=int32(self.rows_at_once, triton.cdiv(vocab_size, 32)),
            counts=int32(self.rows_at_once, vocab_size),
        )

    @contextmanager
    def counts(self, rows: Tensor, lengths: Tensor) -> Iterator[Counts]:
        """The counts of up to ``rows_at_once`` rows [R] of ``lengths`` [R] tokens, both int64; they
        are cleared on leaving the context."""
        self._run(rows, lengths, clears=False)
        try:
            yield self._room
        finally:  # a step that fails must not leave its counts behind
            self._run(rows, lengths, clears=True)

    def penalise(self, logits: Tensor, rows: Tensor, lengths: Tensor) -> None:
        """Apply penalties to logits [R, V], float32, in place; any number of rows."""
        for start in range(0, len(rows), self.rows_at_once):
            part = slice(start, start + self.rows_at_once)
            with self.counts(rows[part], lengths[part]) as counts:
                grid = (len(rows[part]), triton.cdiv(self._vocab_size, _BLOCK))
                launcher_of(_penalise_kernel, grid)(
                    logits[part], logits.stride(0), rows[part], self._table.reals, counts.seen,
                    counts.counts, SIZE=self._vocab_size, BLOCK=_BLOCK, **EXACT,
                )  # fmt: skip

    def _run(self, rows: Tensor, lengths: Tensor, *, clears: bool) -> None:
        launcher_of(_count_kernel, (len(rows), _PROGRAMS))(
            self._room.seen, self._room.counts, self._token_ids, rows, lengths, self._table.reals,
            self._table.integers, self._token_ids.stride(0), SIZE=self._vocab_size, BLOCK=_BLOCK,
            PROGRAMS=_PROGRAMS, CLEARS=clears,
        )  # fmt: skip
