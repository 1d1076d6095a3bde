"""Buckets: pieces of one padded shape as index tensors, and their masks.

An index names one head of a query, or one head of a whole block, so that one gather puts queries,
keys and values into the order in which they are multiplied: [N pieces, K, Q queries x G, D] and
[N, K, L tokens, D].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.attention.pieces import Pieces
from quire.attention.shared_prefix import SharedPrefix
from quire.batch import Batch
from quire.kernels.cpu.few_sizes import padded


@dataclass(frozen=True, kw_only=True, slots=True)
class Bucket:
    """The indices of N pieces of at most Q queries over at most L tokens."""

    query_heads: Tensor  # [N, K, Q * G] index into q as [T * H, D]; padding repeats a last query
    # [planes, N, K, B] index into a cache as [planes * blocks * K, block_size * D]
    cache_heads: Tensor
    query_positions: Tensor  # [N, Q]
    key_positions: Tensor  # [N, L]

    @property
    def num_scores(self) -> int:
        return self.query_heads.numel() * self.key_positions.shape[1]


def build_bucket(members: Pieces, batch: Batch, group: int, problem: AttentionProblem) -> Bucket:
    """The bucket of ``members``, pieces of a step, for layers of ``group``."""
    num_queries, num_blocks = padded(int(members.num_queries.max())), members.num_blocks.max()
    block_size = batch.kv_caches[0].shape[2]
    # Padding repeats a piece's last query.
    offset = np.minimum(np.arange(num_queries), members.num_queries[:, None] - 1)
    # Past a piece's end the null block is read: masks hide what comes after a query, but not
    # infinity or NaN, which a block's former owner may have left.
    column = members.first_block[:, None] + np.arange(num_blocks)
    first_key = members.first_block[:, None] * block_size
    table = batch.groups[group].block_table
    rows, columns, past_end, tokens, query_positions, key_positions = (
        torch.from_numpy(array)
        for array in (
            members.row[:, None],
            np.minimum(column, table.shape[1] - 1),
            np.arange(num_blocks) >= members.num_blocks[:, None],
            members.first_token[:, None] + offset,
            members.first_position[:, None] + offset,
            first_key + np.arange(num_blocks * block_size),
        )
    )
    return Bucket(
        query_heads=_query_heads(tokens, problem),
        cache_heads=_cache_heads(table[rows, columns].masked_fill_(past_end, 0), batch, problem),
        query_positions=query_positions,
        key_positions=key_positions,
    )


def build_prefix_bucket(
    members: Pieces, prefix: SharedPrefix, batch: Batch, group: int, problem: AttentionProblem
) -> Bucket:
    """A bucket of one piece: all queries of some rows, over the first blocks that they share."""
    block_size = batch.kv_caches[0].shape[2]
    offset = np.minimum(np.arange(padded(len(members.tokens))), len(members.tokens) - 1)
    tokens = torch.from_numpy(members.tokens[None, offset])  # padding repeats the last
    block_ids = batch.groups[group].block_table[int(prefix.rows[0]), None, : prefix.num_blocks]
    return Bucket(
        query_heads=_query_heads(tokens, problem),
        cache_heads=_cache_heads(block_ids, batch, problem),
        query_positions=batch.positions[tokens],
        key_positions=torch.arange(prefix.num_blocks * block_size)[None],
    )


def _query_heads(tokens: Tensor, problem: AttentionProblem) -> Tensor:
    """Indices [N, K, Q * G] of the heads of ``tokens`` [N, Q] in q as [T * H, D].

    Head h of token t is row t * H + h, where h = k * G + g.
    """
    heads = torch.arange(problem.num_heads).view(1, problem.num_kv_heads, 1, -1)
    return (tokens[:, None, :, None] * problem.num_heads + heads).flatten(2)


def _cache_heads(block_ids: Tensor, batch: Batch, problem: AttentionProblem) -> Tensor:
    """Indices [planes, N, K, B] of the heads of blocks [N, B] in a cache of this problem.

    In the cache, heads come before tokens. Caches may differ in their number of heads, never in
    their number of blocks.
    """
    num_blocks, num_kv_heads = batch.kv_caches[0].shape[1], problem.num_kv_heads
    keys = block_ids.long()[:, None, :] * num_kv_heads + torch.arange(num_kv_heads)[:, None]
    planes = range(1 if problem.value_dim else 2)
    return torch.stack([keys + plane * num_blocks * num_kv_heads for plane in planes])


# A bucket -> what is added to its scores [N, 1 or K, Q * G, L].
Mask = Callable[[Bucket], Tensor]


def build_mask(problem: AttentionProblem) -> Mask:
    """The function that makes causal masks, with the problem's window and slopes."""
    num_grouped = problem.num_heads // problem.num_kv_heads
    bias = _causal(problem) if problem.alibi_slopes is None else _alibi(problem)

    def mask(one: Bucket) -> Tensor:
        distance = (
            one.query_positions[:, None, :, None, None] - one.key_positions[:, None, None, None]
        )
        return bias(distance).expand(-1, -1, -1, num_grouped, -1).flatten(2, 3)

    return mask


# Distances from queries back to keys [N, 1, Q, 1, L] -> [N, 1 or K, Q, 1 or G, L].
_Bias = Callable[[Tensor], Tensor]


def _causal(problem: AttentionProblem) -> _Bias:
    def bias(distance: Tensor) -> Tensor:
        hidden = distance < 0
        if problem.window is not None:
            hidden |= distance >= problem.window
        return torch.zeros(distance.shape).masked_fill_(hidden, float("-inf"))

    return bias


def _alibi(problem: AttentionProblem) -> _Bias:
    """Press et al. 2021 (arXiv:2108.12409): a head's slope times the distance is subtracted."""
    causal = _causal(problem)
    slopes = torch.tensor(problem.alibi_slopes).view(1, problem.num_kv_heads, 1, -1, 1)

    def bias(distance: Tensor) -> Tensor:
        return causal(distance) - slopes * distance

    return bias
