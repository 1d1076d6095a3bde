"""The arithmetic of sampling over the vocabulary: pure functions of tensors.

Every function treats each row on its own and in the same order of operations whatever the number of
rows, so a row's token does not depend on its neighbours. Knows nothing about requests.
Shapes: N rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

_CHUNK = 256  # the vocabulary is searched in two levels: which chunk, then where in it
_LEAST_EXPONENT, _LEAST_WEIGHT = -87.0, 1.7e-38  # about where float32's normal numbers end


def row_blocks(num_rows: int, rows_at_once: int) -> Iterator[slice]:
    """Slices of at most ``rows_at_once`` rows that cover all, so that temporaries stay small."""
    for start in range(0, num_rows, rows_at_once):
        yield slice(start, min(start + rows_at_once, num_rows))


def argmax(logits: Tensor) -> Tensor:
    """[N, V] -> [N] int64, the first index of each row's largest value.

    Two levels, since torch's own CPU ``argmax`` is ten times slower than ``amax``.
    """
    size = min(_CHUNK, logits.shape[1])
    chunk = _per_chunk(logits, size, torch.amax).argmax(dim=1, keepdim=True)
    # Past the end the last token is repeated, which does not matter: of equal ones the first wins.
    ids = _chunk_ids(chunk, size, logits.device).clamp_(max=logits.shape[1] - 1)
    return (chunk * size).squeeze(1) + logits.gather(1, ids).argmax(dim=1)


def to_weights(logits: Tensor, temperature: Tensor) -> Tensor:
    """[N, V], [N] -> [N, V]: probabilities up to a factor; each row's largest is exactly 1."""
    exponents = (logits - _largest(logits)).div_(temperature.unsqueeze(1))
    return torch.threshold_(_exp_in_range(exponents), _LEAST_WEIGHT, 0.0)


def log_sum_exp(logits: Tensor) -> Tensor:
    """[N, V] -> [N, 1]. torch's own splits a long row between threads, which changes rounding."""
    largest = _largest(logits)
    sums = _per_chunk(_exp_in_range(logits - largest), min(_CHUNK, logits.shape[1]), torch.sum)
    return largest + sums.double().sum(dim=1, keepdim=True).log().float()


def _exp_in_range(exponents: Tensor) -> Tensor:
    """exp in place. Where the result would not be a normal number, which takes a CPU twenty times
    as long, it is `_LEAST_WEIGHT` or less."""
    return exponents.clamp_(min=_LEAST_EXPONENT).exp_()


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token per row from unnormalised ``weights``: [N, V], [N] float64 -> [N] int64.

    The token is the first whose cumulative weight exceeds ``uniforms * total``; never one of weight
    zero, unless all are.
    """
    size = min(_CHUNK, weights.shape[1])
    sums = _per_chunk(weights, size, torch.sum).double()
    ends = sums.cumsum(dim=1)
    target = uniforms.unsqueeze(1) * ends[:, -1:]
    chunk = _first_above(ends, sums, target)
    target = target - (ends - sums).gather(1, chunk)
    ids = _chunk_ids(chunk, size, weights.device)
    inside = ids < weights.shape[1]
    inner = weights.gather(1, ids.clamp(max=weights.shape[1] - 1)).double() * inside
    return (chunk * size + _first_above(inner.cumsum(dim=1), inner, target)).squeeze(1)


def thresholds(weights: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """The least weight that each row keeps, [N]: tokens of a smaller weight are not drawn.

    ``weights`` [N, V] are those of `to_weights`, on a CPU; per row [N] ``top_k`` (int64, 0 is off),
    ``top_p`` (float64, 1 is off), ``min_p`` (float32, 0 is off). A row keeps weights of at least
    ``min_p``; of those its ``top_k`` largest; of those the fewest of the largest that sum to
    ``top_p`` of what was left. Weights equal to the last one kept are kept too, so that the result
    does not depend on the order of equal ones.

    Uses NumPy, whose partition and sort of plain values are vectorised. Measured at [32, 151936]
    with one thread: sort 11 ms, partition 3 ms; torch.sort 330 ms.
    """
    found = [
        _row_threshold(*row)
        for row in zip(weights.numpy(), top_k.numpy(), top_p.numpy(), min_p.numpy(), strict=True)
    ]
    return torch.tensor(found, dtype=weights.dtype)


def _row_threshold(
    weights: np.ndarray, top_k: np.int64, top_p: np.float64, min_p: np.float32
) -> float:
    floor = min_p
    if 0 < top_k < len(weights):
        place = len(weights) - int(top_k)
        floor = max(floor, np.partition(weights, place)[place])
    if top_p < 1.0:
        ascending = np.sort(weights[weights >= floor] if floor > 0.0 else weights)
        mass = np.cumsum(ascending, dtype=np.float64)
        # A token is kept while the mass of the larger ones is below top_p of the total.
        first = int(np.searchsorted(mass, (1.0 - top_p) * mass[-1], side="right"))
        floor = max(floor, ascending[min(first, len(ascending) - 1)])
    return float(floor)


def _largest(logits: Tensor) -> Tensor:
    """The largest logit of each row, [N, V] -> [N, 1]; finite even if every token is forbidden."""
    return logits.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(logits.dtype).min)


def _per_chunk(values: Tensor, size: int, reduce: Callable[..., Tensor]) -> Tensor:
    """Reduce [N, V] to one value per chunk of ``size`` tokens; the last chunk may be short."""
    num_whole = values.shape[1] // size
    whole = reduce(values[:, : num_whole * size].unflatten(1, (num_whole, size)), dim=2)
    if num_whole * size == values.shape[1]:
        return whole
    return torch.cat([whole, reduce(values[:, num_whole * size :], dim=1, keepdim=True)], dim=1)


def _chunk_ids(chunk: Tensor, size: int, device: torch.device) -> Tensor:
    """The tokens of each row's chunk, [N, 1] -> [N, size]; they may run past the vocabulary."""
    return chunk * size + torch.arange(size, device=device)


def _first_above(ends: Tensor, weights: Tensor, target: Tensor) -> Tensor:
    """[N, M] cumulative ``ends`` of ``weights`` -> [N, 1], the first end above ``target``.

    Only positive weights count; where rounding leaves no end above, the last one is taken.
    """
    count = weights.shape[1]
    index = torch.arange(count, device=weights.device)
    score = torch.where(ends > target, 2 * count - index, index)
    return torch.where(weights > 0.0, score, -1).argmax(dim=1, keepdim=True)
