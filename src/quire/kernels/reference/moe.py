"""The definition of mixtures of experts: routing, sorting by expert, and the experts' products.

A *pair* is one token at one of its experts: number t * top_k + slot. Knows no layers.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.cpu.few_sizes import in_few_sizes
from quire.kernels.reference.activation import gated


class Routing(NamedTuple):
    """The experts of each token, best first, no expert twice."""

    weights: Tensor  # [T, top_k] float32
    experts: Tensor  # [T, top_k] int32


class SortedPairs(NamedTuple):
    """Pairs in the order of their experts, cut into tiles that have one expert each."""

    tokens: Tensor  # [T * top_k] int32: the token of the pair at each place, by expert, then token
    places: Tensor  # [T * top_k] int32: the place of each pair in that order
    ends: Tensor  # [experts] int32: where each expert's places end
    tiles: Tensor  # [3, tiles] int32: expert, first place, end; 0, 0, 0: no tile
    block_m: int  # the most places in a tile


def softmax_top_k(logits: Tensor, top_k: int, renormalise: bool) -> Routing:
    """The ``top_k`` most probable experts by logits [T, experts]; of equal ones the first."""
    probabilities = logits.softmax(dim=-1, dtype=torch.float32)
    weights, experts = probabilities.sort(dim=-1, descending=True, stable=True)
    weights, experts = weights[:, :top_k], experts[:, :top_k]
    if renormalise:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return Routing(weights, experts.int())


def max_tiles(num_pairs: int, num_experts: int, block_m: int) -> int:
    """The most tiles that any routing of so many pairs needs."""
    return num_experts + num_pairs // block_m


def sort_by_expert(experts: Tensor, num_experts: int, block_m: int) -> SortedPairs:
    """Sort the pairs of experts [T, top_k] by expert.

    Expert e's tiles begin at index e + (its first place) // block_m. So tiles of different experts
    never collide, and each expert's are known without those of the others.
    """
    flat = experts.flatten().long()
    order = flat.argsort(stable=True)
    ends = flat.bincount(minlength=num_experts).cumsum(0)
    tiles = torch.zeros(3, max_tiles(len(flat), num_experts, block_m), dtype=torch.int32)
    for expert, (start, end) in enumerate(pairwise([0, *ends.tolist()])):
        for i, place in enumerate(range(start, end, block_m)):
            found = (expert, place, min(place + block_m, end))
            tiles[:, expert + start // block_m + i] = torch.tensor(found)
    tokens, places = (order // experts.shape[1]).int(), order.argsort().int()
    return SortedPairs(tokens, places, ends.int(), tiles.to(experts.device), block_m)


def gate_up(
    x: Tensor, experts: Tensor, weight: Tensor, gating: str, bias: Tensor | None = None
) -> Tensor:
    """x [T, H] through gate and up of experts [T, top_k], joined by ``gating``: [T * top_k, I].

    ``weight`` [experts, 2 I, H] and ``bias`` [experts, 2 I]: gate above up.
    """
    gate = gated(gating)
    inner = x.new_empty(experts.numel(), weight.shape[1] // 2)
    for expert, (tokens, pairs) in _pairs_of(experts).items():
        its_bias = None if bias is None else bias[expert]
        product = partial(F.linear, weight=weight[expert], bias=its_bias)
        inner[pairs] = gate(in_few_sizes(product, x[tokens]))
    return inner


def down(inner: Tensor, experts: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``inner`` through down of experts [T, top_k]: [T * top_k, H] by pair, in float32.

    ``inner`` [T * top_k, I] by pair; ``weight`` [experts, H, I], ``bias`` [experts, H].
    """
    results = torch.empty(len(inner), weight.shape[1], device=inner.device)
    for expert, (_, pairs) in _pairs_of(experts).items():
        its_bias = None if bias is None else bias[expert].float()
        results[pairs] = F.linear(inner[pairs].float(), weight[expert].float(), its_bias)
    return results


def add_sums(h: Tensor, results: Tensor, shares: Tensor) -> None:
    """h [T, H] += the sum of each token's results [T * top_k, H] times shares [T, top_k]."""
    sums = (results.view(*shares.shape, -1).float() * shares.unsqueeze(2)).sum(dim=1)
    h.copy_(h.float() + sums)


def _pairs_of(experts: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Expert -> its (tokens, pairs), for the experts that have any."""
    flat = experts.flatten()
    pairs = {expert: (flat == expert).nonzero().flatten() for expert in flat.unique().tolist()}
    return {expert: (own // experts.shape[1], own) for expert, own in pairs.items()}
