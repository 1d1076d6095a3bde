"""The next token of each row, by temperature, min-p, top-k and top-p: four launches, no sort.

    parts    a program per row and chunk    the chunk's largest logit, and the sum of its weights
    bracket  a program per row              greedy rows and rows without filters: the token. Others:
                                            a bracket, estimated from a sample, around the least
                                            weight that is kept
    narrow   a program per row and chunk    filtered rows: weights above the bracket are added up,
                                            those within are collected
    finish   a program per row              filtered rows: the exact threshold, and the draw

So logits are read once, and those of filtered rows twice (Floyd and Rivest's SELECT, 1975). The
bracket is a guess that only costs time when it is wrong: `finish` notices, and then bisects over
the whole row. The token drawn is where the cumulative weight, in the order of the vocabulary,
exceeds the row's random number. That takes one random number per row, where the Gumbel-max trick
takes one per token, which costs more than reading the logit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.reference.sampling_table import SamplingTable
from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.sampling_bracket import bracket_of
from quire.kernels.triton.sampling_history import Counts
from quire.kernels.triton.sampling_rows import (
    EXACT,
    MIN_P,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    UNITS,
    find_share,
    is_filtered,
    load_logits,
    random_share,
    read_double,
    read_integer,
    read_real,
    scale_of,
    to_finite,
    to_units,
    to_weights,
)
from quire.kernels.triton.sampling_search import largest_with, largest_with_in_row

MAX_ROWS_AT_ONCE = 256  # bounds the memory for collected weights
_ROUNDING_BITS = tl.constexpr(1024.0)  # of the chunks' sums; they stay below 2^62


@triton.jit
def _parts_kernel(
    part_largest, part_best, part_masses,
    logits, stride, rows, reals, seen, counts,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0), tl.program_id(1)
    owner = tl.load(rows + row)
    place = chunk * BLOCK + tl.arange(0, BLOCK)
    values = load_logits(
        logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=PENALISED
    )
    largest, best = tl.max(values, 0, return_indices=True)
    part = row * CHUNKS + chunk
    tl.store(part_largest + part, largest)
    tl.store(part_best + part, chunk * BLOCK + best)
    temperature = read_real(reals, owner, TEMPERATURE)
    if temperature > 0.0:
        weights = to_weights(values, to_finite(largest), scale_of(temperature))
        tl.store(part_masses + part, tl.sum(to_units(weights).to(tl.int64), 0))


@triton.jit
def _bracket_kernel(
    out, brackets, counters, part_largest, part_best, part_masses,
    logits, stride, rows, lengths, reals, integers, seen, counts,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, PADDED: tl.constexpr,
    SAMPLE: tl.constexpr, CAPACITY: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    owner = tl.load(rows + row)
    index = tl.arange(0, PADDED)
    is_chunk = index < CHUNKS
    part = row * CHUNKS + index
    maxima = tl.load(part_largest + part, mask=is_chunk, other=float("-inf"))
    largest = tl.max(maxima, 0)
    best = tl.load(part_best + part, mask=is_chunk, other=SIZE)
    best = tl.min(tl.where((maxima == largest) & is_chunk, best, SIZE), 0)
    tl.store(out + row, best.to(tl.int64))
    temperature = read_real(reals, owner, TEMPERATURE)
    if temperature > 0.0:
        largest = to_finite(largest)
        scale = scale_of(temperature)
        masses = tl.load(part_masses + part, mask=is_chunk, other=0)
        shares = to_weights(maxima, largest, scale).to(tl.float64) * _ROUNDING_BITS
        masses_of_row = (masses.to(tl.float64) * shares).to(tl.int64)
        total = tl.sum(masses_of_row, 0)
        if is_filtered(reals, integers, owner, SIZE=SIZE):
            low, high = bracket_of(
                logits, row, stride, owner, reals, integers, seen, counts, largest, scale,
                total.to(tl.float32) / (UNITS * _ROUNDING_BITS),
                SIZE=SIZE, SAMPLE=SAMPLE, CAPACITY=CAPACITY, PENALISED=PENALISED,
            )  # fmt: skip
            tl.store(brackets + row * 3, largest)
            tl.store(brackets + row * 3 + 1, low)
            tl.store(brackets + row * 3 + 2, high)
            tl.store(counters + row, 0)
        elif total > 0:
            seed = read_integer(integers, owner, SEED)
            target = random_share(seed, tl.load(lengths + row), total)
            chunk, rest = find_share(masses_of_row, target, PADDED=PADDED)
            mass_of_row = tl.sum(tl.where(index == chunk, masses_of_row, 0), 0)
            mass = tl.sum(tl.where(index == chunk, masses, 0), 0)
            # The same share of the chunk's sum, which is relative to the chunk's largest logit.
            rest = (rest.to(tl.float64) / mass_of_row.to(tl.float64) * mass.to(tl.float64)).to(
                tl.int64
            )
            largest = to_finite(tl.max(tl.where(index == chunk, maxima, float("-inf")), 0))
            _draw_in_chunk(
                out, logits, row, stride, owner, reals, seen, counts, largest, scale, 0.0,
                chunk, tl.minimum(rest, mass - 1), SIZE=SIZE, BLOCK=BLOCK, PENALISED=PENALISED,
            )  # fmt: skip


@triton.jit
def _draw_in_chunk(
    out, logits, row, stride, owner, reals, seen, counts, largest, scale, least, chunk, target,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    place = chunk * BLOCK + tl.arange(0, BLOCK)
    values = load_logits(
        logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=PENALISED
    )
    weights = to_weights(values, largest, scale)
    units = tl.where(weights >= least, to_units(weights), 0).to(tl.int64)
    token, _ = find_share(units, target, PADDED=BLOCK)
    tl.store(out + row, (chunk * BLOCK + token).to(tl.int64))


@triton.jit
def _narrow_kernel(
    collected, counters, part_firsts, part_numbers, part_masses, part_totals, brackets,
    logits, stride, rows, reals, integers, seen, counts,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, CAPACITY: tl.constexpr,
    PENALISED: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0), tl.program_id(1)
    owner = tl.load(rows + row)
    temperature = read_real(reals, owner, TEMPERATURE)
    if (temperature > 0.0) & is_filtered(reals, integers, owner, SIZE=SIZE):
        place = chunk * BLOCK + tl.arange(0, BLOCK)
        values = load_logits(
            logits, row, stride, place, owner, reals, seen, counts, SIZE=SIZE, PENALISED=PENALISED
        )
        weights = to_weights(values, tl.load(brackets + row * 3), scale_of(temperature))
        low = tl.load(brackets + row * 3 + 1)
        high = tl.load(brackets + row * 3 + 2)
        units = to_units(weights)
        units = tl.where(weights >= read_real(reals, owner, MIN_P), units, 0)
        part = row * CHUNKS + chunk
        tl.store(part_totals + part, tl.sum(units.to(tl.int64), 0))
        tl.store(part_masses + part, tl.sum(tl.where(weights > high, units, 0).to(tl.int64), 0))
        is_within = (units > 0) & (weights >= low) & (weights <= high)
        number = tl.sum(is_within.to(tl.int32), 0)
        tl.store(part_numbers + part, number)
        if number > 0:
            first = tl.atomic_add(counters + row, number)
            tl.store(part_firsts + part, first)
            slot = first + tl.cumsum(is_within.to(tl.int32), 0) - 1
            tl.store(collected + row * CAPACITY + slot, weights, mask=is_within & (slot < CAPACITY))


@triton.jit
def _threshold(
    weights, number, mass_above, total, low, high, top_k, top_p, floor, SIZE: tl.constexpr,
    CAPACITY: tl.constexpr,
):  # fmt: skip
    """(the least weight kept, whether the collected weights were enough to tell)."""
    units = to_units(weights).to(tl.int64)
    is_enough = number <= CAPACITY
    if (top_k > 0) & (top_k < SIZE):
        is_enough = is_enough & ((number >= top_k) | (low <= floor))  # nothing else counts
        ones = tl.full([CAPACITY], 1, tl.int32)
        floor = tl.maximum(floor, largest_with(weights, ones, top_k.to(tl.int32), low, high))
        total = tl.sum(tl.where(weights >= floor, units, 0), 0)
    if top_p < 1.0:
        needed = top_p * total.to(tl.float64)
        needed_units = needed.to(tl.int64)
        needed_units += (needed_units.to(tl.float64) < needed).to(tl.int64)
        missing = needed_units - mass_above
        within = tl.sum(tl.where(weights >= floor, units, 0), 0)
        is_enough = is_enough & (missing > 0) & (missing <= within)
        floor = tl.maximum(floor, largest_with(weights, units, missing, low, high))
    return floor, is_enough


@triton.jit
def _finish_kernel(
    out, ends, collected, part_firsts, part_numbers, part_masses, part_totals, brackets,
    logits, stride, rows, lengths, reals, integers, seen, counts,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, PADDED: tl.constexpr,
    CAPACITY: tl.constexpr, PENALISED: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    owner = tl.load(rows + row)
    temperature = read_real(reals, owner, TEMPERATURE)
    if (temperature > 0.0) & is_filtered(reals, integers, owner, SIZE=SIZE):
        index = tl.arange(0, PADDED)
        is_chunk = index < CHUNKS
        part = row * CHUNKS + index
        numbers = tl.load(part_numbers + part, mask=is_chunk, other=0)
        masses = tl.load(part_masses + part, mask=is_chunk, other=0)
        totals = tl.load(part_totals + part, mask=is_chunk, other=0)
        largest = tl.load(brackets + row * 3)
        low = tl.load(brackets + row * 3 + 1)
        high = tl.load(brackets + row * 3 + 2)
        number = tl.sum(numbers, 0)
        scale = scale_of(temperature)
        floor = read_real(reals, owner, MIN_P)
        top_k = read_integer(integers, owner, TOP_K)
        top_p = read_double(reals, owner, TOP_P)
        slot = tl.arange(0, CAPACITY)
        weights = tl.load(collected + row * CAPACITY + slot, mask=slot < number, other=0.0)
        least, is_enough = _threshold(
            weights, number, tl.sum(masses, 0), tl.sum(totals, 0), low, high, top_k, top_p, floor,
            SIZE=SIZE, CAPACITY=CAPACITY,
        )  # fmt: skip
        if is_enough:
            kept = tl.where(weights >= least, to_units(weights), 0).to(tl.int64)
            tl.store(ends + row * CAPACITY + slot, tl.cumsum(kept, 0))
            tl.debug_barrier()
            has_some = is_chunk & (numbers > 0)
            firsts = tl.load(part_firsts + part, mask=has_some, other=0)
            line = ends + row * CAPACITY + firsts
            masses += tl.load(line + numbers - 1, mask=has_some, other=0)
            masses -= tl.load(line - 1, mask=has_some & (firsts > 0), other=0)
        else:
            least, masses = largest_with_in_row(
                logits, row, stride, owner, reals, seen, counts, largest, scale,
                low, high, floor, top_k, top_p, SIZE=SIZE, BLOCK=BLOCK, CHUNKS=CHUNKS,
                PADDED=PADDED, PENALISED=PENALISED,
            )  # fmt: skip
        total = tl.sum(masses, 0)
        if total > 0:
            seed = read_integer(integers, owner, SEED)
            target = random_share(seed, tl.load(lengths + row), total)
            chunk, rest = find_share(masses, target, PADDED=PADDED)
            _draw_in_chunk(
                out, logits, row, stride, owner, reals, seen, counts, largest, scale, least,
                chunk, rest, SIZE=SIZE, BLOCK=BLOCK, PENALISED=PENALISED,
            )  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """How much the kernels take at once; powers of two."""

    block: int = 4096  # logits of one program of `parts` and `narrow`
    warps: int = 4  # of such a program
    sample: int = 16384  # logits from which a bracket is guessed
    capacity: int = 8192  # the most weights that are collected of a row


class Chooser:
    """Chooses tokens; owns the memory between the four kernels, for up to ``max_rows`` rows."""

    def __init__(
        self,
        max_rows: int,
        vocab_size: int,
        table: SamplingTable,
        sizes: Sizes = Sizes(),
    ) -> None:
        self._table, self._sizes = table, sizes
        self._chunks = triton.cdiv(vocab_size, sizes.block)
        self._rows_at_once = min(max_rows, MAX_ROWS_AT_ONCE)
        device, rows, chunks = table.integers.device, self._rows_at_once, self._chunks
        float32 = partial(torch.empty, dtype=torch.float32, device=device)
        int32 = partial(torch.empty, dtype=torch.int32, device=device)
        int64 = partial(torch.empty, dtype=torch.int64, device=device)
        self._largest = float32(rows, chunks)
        self._best = int32(rows, chunks)
        self._masses = int64(rows, chunks)
        self._totals = int64(rows, chunks)
        self._firsts = int32(rows, chunks)
        self._numbers = int32(rows, chunks)
        self._brackets = float32(rows, 3)
        self._counters = int32(rows)
        self._collected = float32(rows, sizes.capacity)
        self._ends = int64(rows, sizes.capacity)

    def __call__(
        self, logits: Tensor, rows: Tensor, lengths: Tensor, counts: Counts | None = None
    ) -> Tensor:
        """Logits [R, V] of any float dtype -> tokens [R] int64, as `reference.sampling.choose`.

        With ``counts``, of these rows' tokens, penalties are applied to the logits first.
        """
        out = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
        for start in range(0, len(logits), self._rows_at_once):
            part = slice(start, start + self._rows_at_once)
            self._choose(out[part], logits[part], rows[part], lengths[part], counts)
        return out

    def _choose(
        self, out: Tensor, logits: Tensor, rows: Tensor, lengths: Tensor, counts: Counts | None
    ) -> None:
        sizes, chunks, num_rows = self._sizes, self._chunks, len(rows)
        reals, integers = self._table.reals, self._table.integers
        seen = (self._best, self._best) if counts is None else (counts.seen, counts.counts)
        source = (logits, logits.stride(0), rows)
        shape = {
            "SIZE": logits.shape[1], "BLOCK": sizes.block, "CHUNKS": chunks,
            "PENALISED": counts is not None, **EXACT,
        }  # fmt: skip
        padded = triton.next_power_of_2(chunks)
        parts = (self._largest, self._best, self._masses)
        collected = (self._firsts, self._numbers, self._masses, self._totals, self._brackets)
        launcher_of(_parts_kernel, (num_rows, chunks))(
            *parts, *source, reals, *seen, **shape, num_warps=sizes.warps
        )
        launcher_of(_bracket_kernel, (num_rows,))(
            out, self._brackets, self._counters, *parts, *source, lengths, reals, integers, *seen,
            **shape, PADDED=padded, SAMPLE=sizes.sample, CAPACITY=sizes.capacity, num_warps=16,
        )  # fmt: skip
        launcher_of(_narrow_kernel, (num_rows, chunks))(
            self._collected, self._counters, *collected, *source, reals, integers, *seen,
            **shape, CAPACITY=sizes.capacity, num_warps=sizes.warps,
        )  # fmt: skip
        launcher_of(_finish_kernel, (num_rows,))(
            out, self._ends, self._collected, *collected, *source, lengths, reals, integers, *seen,
            **shape, PADDED=padded, CAPACITY=sizes.capacity, num_warps=16,
        )  # fmt: skip
