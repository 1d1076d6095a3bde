"""Log-probabilities of the new tokens and of the best ones beside them, in two launches.

parts   a program per row and chunk   each group's largest logit, the chunk's largest, its sum
                                      of weights, and how many logits exceed the token's own
finish  a program per row             the best K tokens, which lie in the K groups that have
                                      the largest logits (of equals the first, so ties are
                                      right too), and the log-softmax
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.sampling_table import SamplingTable
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.sampling_history import Counts
from quire.kernels.triton.sampling_rows import (
    EXACT,
    LOGPROBS,
    NO_LOGPROBS,
    PROCESSED_LOGPROBS,
    TEMPERATURE,
    UNITS,
    load_logits,
    read_integer,
    read_real,
    scale_of,
    to_finite,
    to_units,
    to_weights,
)

MAX_ROWS_AT_ONCE = 256
_BLOCK = 4096
_GROUP = 64


class Logprobs(NamedTuple):
    token_ids: Tensor  # [R, 1 + K] int64
    logprobs: Tensor  # [R, 1 + K] float32
    ranks: Tensor  # [R] int32


@triton.jit
def _owner(rows, row, ALL_RAW: tl.constexpr):
    if ALL_RAW:
        return (row * 0).to(tl.int64)  # any line of the table: none of it is used
    return tl.load(rows + row)


@triton.jit
def _is_processed(integers, owner, ALL_RAW: tl.constexpr):
    if ALL_RAW:
        return False
    return read_integer(integers, owner, LOGPROBS) == PROCESSED_LOGPROBS


@triton.jit
def _is_wanted(integers, owner, ALL_RAW: tl.constexpr):
    if ALL_RAW:
        return True
    return read_integer(integers, owner, LOGPROBS) != NO_LOGPROBS


@triton.jit
def _divisor(reals, owner, is_processed):
    temperature = read_real(reals, owner, TEMPERATURE)
    return tl.where(is_processed & (temperature > 0.0), temperature, 1.0)


@triton.jit
def _load(
    logits, row, stride, place, owner, reals, seen, counts, is_processed, SIZE: tl.constexpr,
    PENALISED: tl.constexpr,
):  # fmt: skip
    values = load_logits(
        logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=False
    )
    if PENALISED:  # noqa: SIM102, known when it is compiled
        if is_processed:
            values = load_logits(
                logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=True
            )
    return values


@triton.jit
def _parts_kernel(
    group_largest, part_largest, part_masses, part_above,
    logits, stride, targets, rows, reals, integers, seen, counts,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, PENALISED: tl.constexpr, ALL_RAW: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0), tl.program_id(1)
    owner = _owner(rows, row, ALL_RAW=ALL_RAW)
    if _is_wanted(integers, owner, ALL_RAW=ALL_RAW):
        is_processed = _is_processed(integers, owner, ALL_RAW=ALL_RAW)
        own = _load(
            logits, row, stride, tl.load(targets + row), owner, reals, seen, counts, is_processed,
            SIZE=SIZE, PENALISED=PENALISED,
        )  # fmt: skip
        group = tl.arange(0, BLOCK // GROUP)
        place = chunk * BLOCK + group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        values = _load(
            logits, row, stride, place, owner, reals, seen, counts, is_processed,
            SIZE=SIZE, PENALISED=PENALISED,
        )  # fmt: skip
        maxima = tl.max(values, 1)
        group += chunk * (BLOCK // GROUP)
        tl.store(group_largest + row * GROUPS + group, maxima, mask=group < GROUPS)
        largest = tl.max(maxima, 0)
        scale = scale_of(_divisor(reals, owner, is_processed))
        units = to_units(to_weights(values, to_finite(largest), scale)).to(tl.int64)
        part = row * CHUNKS + chunk
        tl.store(part_largest + part, largest)
        tl.store(part_masses + part, tl.sum(tl.sum(units, 1), 0))
        tl.store(part_above + part, tl.sum(tl.sum((values > own).to(tl.int32), 1), 0))


@triton.jit
def _best(values, index, NUMBER: tl.constexpr, PADDED: tl.constexpr):
    """(index, value) of the NUMBER largest ``values``, the largest first, each [PADDED].

    Of equal values the one with the smaller ``index`` comes first. Values whose index is negative
    are skipped.
    """
    slot = tl.arange(0, PADDED)
    best = tl.zeros([PADDED], tl.int32)
    best_values = tl.full([PADDED], float("-inf"), tl.float32)
    left = index >= 0
    for number in range(NUMBER):
        value = tl.max(tl.where(left, values, float("-inf")), 0)
        found = tl.min(tl.where(left & (values == value), index, 0x7FFFFFFF), 0)
        left = left & (index != found)
        best = tl.where(slot == number, found, best)
        best_values = tl.where(slot == number, value, best_values)
    return best, best_values


@triton.jit
def _finish_kernel(
    out_ids, out_logprobs, out_ranks, group_largest, part_largest, part_masses, part_above,
    best_groups, logits, stride, targets, rows, reals, integers, seen, counts,
    SIZE: tl.constexpr, CHUNKS: tl.constexpr, PADDED: tl.constexpr, GROUP: tl.constexpr,
    GROUPS: tl.constexpr, PADDED_GROUPS: tl.constexpr, BEST_GROUPS: tl.constexpr,
    NUMBER: tl.constexpr, PADDED_NUMBER: tl.constexpr, PENALISED: tl.constexpr,
    ALL_RAW: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    owner = _owner(rows, row, ALL_RAW=ALL_RAW)
    if _is_wanted(integers, owner, ALL_RAW=ALL_RAW):
        is_processed = _is_processed(integers, owner, ALL_RAW=ALL_RAW)
        divisor = _divisor(reals, owner, is_processed)
        index = tl.arange(0, PADDED)
        part = row * CHUNKS + index
        maxima = tl.load(part_largest + part, mask=index < CHUNKS, other=float("-inf"))
        largest = to_finite(tl.max(maxima, 0))
        masses = tl.load(part_masses + part, mask=index < CHUNKS, other=0).to(tl.float64)
        shares = to_weights(maxima, largest, scale_of(divisor)).to(tl.float64)
        total = (tl.sum(masses * shares, 0) / UNITS).to(tl.float32)
        total = tl.maximum(total, 1.0e-30)  # it is 1 or more, or 0 where every token is forbidden
        above = tl.sum(tl.load(part_above + part, mask=index < CHUNKS, other=0), 0)
        target = tl.load(targets + row)
        own = _load(
            logits, row, stride, target, owner, reals, seen, counts, is_processed,
            SIZE=SIZE, PENALISED=PENALISED,
        )  # fmt: skip
        line = row * (1 + NUMBER)
        tl.store(out_ids + line, target)
        tl.store(out_logprobs + line, (own - largest) / divisor - tl.log(total))
        tl.store(out_ranks + row, above + 1)

        group = tl.arange(0, PADDED_GROUPS)
        values = tl.load(
            group_largest + row * GROUPS + group, mask=group < GROUPS, other=float("-inf")
        )
        groups, _ = _best(
            values, tl.where(group < GROUPS, group, -1), NUMBER=BEST_GROUPS, PADDED=PADDED_NUMBER
        )
        slot = tl.arange(0, PADDED_NUMBER)
        tl.store(best_groups + row * PADDED_NUMBER + slot, groups)
        tl.debug_barrier()
        candidate = tl.arange(0, PADDED_NUMBER * GROUP)
        groups = tl.load(best_groups + row * PADDED_NUMBER + candidate // GROUP)
        place = groups * GROUP + candidate % GROUP
        place = tl.where(candidate // GROUP < BEST_GROUPS, place, SIZE)
        values = _load(
            logits, row, stride, place, owner, reals, seen, counts, is_processed,
            SIZE=SIZE, PENALISED=PENALISED,
        )  # fmt: skip
        best, values = _best(
            values, tl.where(place < SIZE, place, -1), NUMBER=NUMBER, PADDED=PADDED_NUMBER
        )
        line += 1 + slot
        tl.store(out_ids + line, best.to(tl.int64), mask=slot < NUMBER)
        values = (values - largest) / divisor - tl.log(total)
        tl.store(out_logprobs + line, values, mask=slot < NUMBER)


class BestLogprobs:
    """Owns the memory between the two kernels, for up to ``max_rows`` rows; K is ``number``."""

    def __init__(
        self,
        max_rows: int,
        vocab_size: int,
        table: SamplingTable,
        number: int,
        *,
        block: int = _BLOCK,
        group: int = _GROUP,
    ) -> None:
        self._table, self._block, self._group = table, block, group
        self.number = min(number, vocab_size)
        self._rows_at_once = rows = min(max_rows, MAX_ROWS_AT_ONCE)
        self._chunks, self._groups = triton.cdiv(vocab_size, block), triton.cdiv(vocab_size, group)
        self._padded_number = triton.next_power_of_2(self.number)
        device = table.integers.device
        float32 = partial(torch.empty, dtype=torch.float32, device=device)
        int32 = partial(torch.empty, dtype=torch.int32, device=device)
        self._group_largest = float32(rows, self._groups)
        self._largest = float32(rows, self._chunks)
        self._masses = torch.empty(rows, self._chunks, dtype=torch.int64, device=device)
        self._above = int32(rows, self._chunks)
        self._best_groups = int32(rows, self._padded_number)

    def __call__(
        self,
        logits: Tensor,
        targets: Tensor,
        rows: Tensor | None = None,
        counts: Counts | None = None,
    ) -> Logprobs:
        """Log-probabilities of ``targets`` [R] and the best tokens by logits [R, V] of any float
        dtype.

        Without ``rows`` they are raw. With ``rows`` [R] each row's line of the table decides: raw;
        processed, where ``counts`` serve for its penalties; or none, which leaves its line of the
        result unwritten.
        """
        num_rows, device = len(logits), logits.device
        found = Logprobs(
            torch.empty(num_rows, 1 + self.number, dtype=torch.int64, device=device),
            torch.empty(num_rows, 1 + self.number, dtype=torch.float32, device=device),
            torch.empty(num_rows, dtype=torch.int32, device=device),
        )
        for start in range(0, num_rows, self._rows_at_once):
            part = slice(start, start + self._rows_at_once)
            self._run(
                Logprobs(*(tensor[part] for tensor in found)), logits[part], targets[part],
                None if rows is None else rows[part], counts,
            )  # fmt: skip
        return found

    def _run(
        self, found: Logprobs, logits: Tensor, targets: Tensor, rows: Tensor | None,
        counts: Counts | None,
    ) -> None:  # fmt: skip
        num_rows, chunks = len(logits), self._chunks
        parts = (self._group_largest, self._largest, self._masses, self._above)
        seen = (self._above, self._above) if counts is None else (counts.seen, counts.counts)
        source = (
            logits, logits.stride(0), targets, targets if rows is None else rows,
            self._table.reals, self._table.integers, *seen,
        )  # fmt: skip
        shape = {
            "SIZE": logits.shape[1], "CHUNKS": chunks, "GROUP": self._group, "GROUPS": self._groups,
            "PENALISED": counts is not None, "ALL_RAW": rows is None, **EXACT,
        }  # fmt: skip
        launcher_of(_parts_kernel, (num_rows, chunks))(
            *parts, *source, **shape, BLOCK=self._block, num_warps=8
        )
        launcher_of(_finish_kernel, (num_rows,))(
            *found, *parts, self._best_groups, *source, **shape,
            PADDED=triton.next_power_of_2(chunks), NUMBER=self.number,
            PADDED_GROUPS=triton.next_power_of_2(self._groups),
            BEST_GROUPS=min(self.number, self._groups), PADDED_NUMBER=self._padded_number,
            num_warps=8,
        )  # fmt: skip
