"""Greedy sampling: the largest logit of each row, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from quire.kernels.rehearsal import launcher_of
from quire.kernels.triton.launch import await_inputs, dependent_launch

_BLOCK = 8192  # logits of one program


@triton.jit
def _argmax_kernel(
    out, logits, best_values, best_places, counters, stride,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, CHUNKS: tl.constexpr, PADDED: tl.constexpr,
    DEPENDENT: tl.constexpr,
):  # fmt: skip
    row, chunk = tl.program_id(0), tl.program_id(1)
    await_inputs(DEPENDENT)
    place = chunk * BLOCK + tl.arange(0, BLOCK)
    values = tl.load(
        logits + row.to(tl.int64) * stride + place, mask=place < SIZE, other=float("-inf")
    ).to(tl.float32)
    values = tl.where(values == values, values, float("-inf"))  # NaN would hide the largest logit
    value, index = tl.max(values, 0, return_indices=True)
    tl.store(best_values + row * CHUNKS + chunk, value)
    tl.store(best_places + row * CHUNKS + chunk, chunk * BLOCK + index)
    tl.debug_barrier()
    if tl.atomic_add(counters + row, 1, sem="acq_rel") != CHUNKS - 1:
        return
    tl.store(counters + row, 0)
    other = tl.arange(0, PADDED)
    values = tl.load(
        best_values + row * CHUNKS + other, mask=other < CHUNKS, other=float("-inf"),
        cache_modifier=".cg",
    )  # fmt: skip
    largest = tl.max(values, 0)
    places = tl.load(
        best_places + row * CHUNKS + other, mask=other < CHUNKS, other=SIZE, cache_modifier=".cg"
    )
    # of equal logits the first one, as torch.argmax does
    first = tl.min(tl.where((values == largest) & (other < CHUNKS), places, SIZE), 0)
    tl.store(out + row, first.to(tl.int64))


class Argmax:
    """Owns the intermediate results for up to ``max_rows`` rows of ``vocab_size`` logits."""

    def __init__(self, max_rows: int, vocab_size: int, device: torch.device) -> None:
        self._chunks = triton.cdiv(vocab_size, _BLOCK)
        room = max_rows * self._chunks
        self._values = torch.empty(room, dtype=torch.float32, device=device)
        self._places = torch.empty(room, dtype=torch.int32, device=device)
        self._counters = torch.zeros(max_rows, dtype=torch.int32, device=device)

    def __call__(self, logits: Tensor) -> Tensor:
        """Logits [S, V] of any float dtype -> the token of the largest one [S] int64."""
        num_rows, vocab_size = logits.shape
        out = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
        launcher_of(_argmax_kernel, (num_rows, self._chunks))(
            out, logits, self._values, self._places, self._counters, logits.stride(0),
            SIZE=vocab_size, BLOCK=_BLOCK, CHUNKS=self._chunks,
            PADDED=triton.next_power_of_2(self._chunks), num_warps=8, **dependent_launch(),
        )  # fmt: skip
        return out
