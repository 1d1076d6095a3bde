"""Paged attention as it is defined, and the write of keys and values into their slots.

A KV cache is [2, num_blocks, block_size, K, D]: keys, then values; or [1, ...], where values are
the first part of the keys. Its dtype is that of keys and values, or one of 8 bits (fp8), without
scales. Slow and plain on purpose: what backends are compared to.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def write_kv(k: Tensor, v: Tensor, kv_cache: Tensor, slot_mapping: Tensor) -> None:
    """Put k and v [T, K, D] at slots ``slot_mapping`` [T] (block * block_size + offset)."""
    write_keys(k, kv_cache[:1], slot_mapping)
    write_keys(v, kv_cache[1:], slot_mapping)


def write_keys(k: Tensor, kv_cache: Tensor, slot_mapping: Tensor) -> None:
    """Put k [T, K, D] at slots ``slot_mapping`` [T] of a cache of keys alone, [1, ...]."""
    block_size = kv_cache.shape[2]
    places = (slot_mapping // block_size, slot_mapping % block_size)
    kv_cache[0].index_put_(places, as_cached(k, kv_cache.dtype))


def as_cached(values: Tensor, dtype: torch.dtype) -> Tensor:
    """``values`` in a cache's dtype; those too large for 8 bits become the largest there are."""
    if dtype.itemsize == 1:
        largest = torch.finfo(dtype).max
        values = values.clamp(-largest, largest)
    return values.to(dtype)


def paged_attention(
    q: Tensor,
    kv_cache: Tensor,
    block_table: Tensor,
    query_start: Tensor,
    seq_lens: Tensor,
    *,
    scale: float,
    window: int | None = None,
    soft_cap: float | None = None,
    alibi_slopes: Sequence[float] | None = None,
    sinks: Tensor | None = None,
    value_dim: int | None = None,
) -> Tensor:
    """Causal attention of q [T, H, D] over each row's cached tokens, its own included.

    The last of a row's queries sees ``seq_lens[row]`` tokens, each one before it one token fewer;
    with a window only the last ``window`` of them. Scores, softmax and sum are float32. ``sinks``
    [H]: a score per head that takes part in the softmax and has no value. ``value_dim``: a value
    is the first so many elements of its key.
    """
    out = q.new_empty(*q.shape[:2], value_dim or q.shape[2])
    bounds, lengths = query_start.tolist(), seq_lens.tolist()
    for row, length in enumerate(lengths):
        queries = slice(bounds[row], bounds[row + 1])
        count = bounds[row + 1] - bounds[row]
        positions = torch.arange(length - count, length, device=q.device)
        scores, values = _row_scores(q[queries], kv_cache, block_table[row], length, scale)
        distance = positions[:, None] - torch.arange(length, device=q.device)
        if soft_cap is not None:
            scores = soft_cap * torch.tanh(scores / soft_cap)
        if alibi_slopes is not None:
            slopes = torch.tensor(alibi_slopes, device=q.device)
            scores = scores - slopes[:, None, None] * distance
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        weights = _softmax(scores.masked_fill(hidden, float("-inf")), sinks)
        values = values[..., : out.shape[2]]
        out[queries] = torch.einsum("hts,shd->thd", weights, values).to(q.dtype)
    return out


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """The weights of scores [H, queries, length]; sinks [H] take part, and are left out after."""
    if sinks is None:
        return scores.softmax(dim=-1)
    sink = sinks.float()[:, None, None].expand(-1, scores.shape[1], 1)
    return torch.cat((scores, sink), dim=-1).softmax(dim=-1)[..., :-1]


def _row_scores(
    q: Tensor, kv_cache: Tensor, blocks: Tensor, length: int, scale: float
) -> tuple[Tensor, Tensor]:
    """One row's scaled scores [H, queries, length], and its values [length, H, D] in float32.

    In a cache of keys alone, the whole keys stand for the values.
    """
    num_heads, (_, _, block_size, num_kv_heads, _) = q.shape[1], kv_cache.shape
    used = blocks[: -(-length // block_size)].long()
    planes = [
        cache[used].flatten(0, 1)[:length].float().repeat_interleave(num_heads // num_kv_heads, 1)
        for cache in kv_cache.unbind(0)
    ]
    return torch.einsum("thd,shd->hts", q.float(), planes[0]) * scale, planes[-1]
