"""How the tokens of a mixture choose their experts: functions of the router's logits.

They consist of torch operations whose shapes depend on the number of tokens alone, so that a graph
can capture them; the common softmax has a kernel of its own on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.kernels.reference.moe import Routing
from quire.layers.linear import Linear
from quire.layers.moe_spec import GroupedRouting, MoESpec, SoftmaxRouting, SparseMixerRouting
from quire.weights.reader import TensorReader

Route = Callable[[Tensor], Routing]  # of the router's logits [T, experts]
Map = Callable[[Tensor], Tensor]

_HIDDEN = float("-inf")
_TINY = 1e-20  # added to a sum of scores that could all be zero


class ExactRouter:
    """The router's product in float32, whatever the model's dtype."""

    def __init__(self, spec: MoESpec) -> None:
        self._shape = (spec.num_experts, spec.hidden_size)
        self._has_bias = spec.router_bias
        self._weight: Tensor
        self._bias: Tensor | None = None

    def load(self, reader: TensorReader, prefix: str) -> None:
        exact = torch.float32
        self._weight = reader.read(f"{prefix}.router.weight", self._shape, dtype=exact)
        if self._has_bias:
            self._bias = reader.read(f"{prefix}.router.bias", self._shape[:1], dtype=exact)

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self._weight, self._bias)


def build_router(spec: MoESpec) -> Linear | ExactRouter:
    """The map from hidden vectors [T, H] to logits [T, experts]."""
    if spec.exact_router:
        return ExactRouter(spec)
    return Linear(spec.hidden_size, {"router": spec.num_experts}, bias=spec.router_bias)


def load_route(spec: MoESpec, reader: TensorReader, prefix: str) -> Route:
    """The routing function of the spec, with the checkpoint's correction if there is one."""
    routing = spec.routing
    if isinstance(routing, SoftmaxRouting):
        softmax_top_k = _softmax_top_k(reader.device)
        return partial(softmax_top_k, top_k=spec.top_k, renormalise=routing.renormalise)
    if isinstance(routing, SparseMixerRouting):
        assert spec.top_k == 2, "a sparse mixer has two experts"
        return partial(sparse_mixer, jitter=routing.jitter)
    correction = None
    if routing.correction:
        name = f"{prefix}.router.correction"
        correction = reader.read(name, (spec.num_experts,), dtype=torch.float32)
    return _grouped(routing, spec.top_k, correction)


def _softmax_top_k(device: torch.device) -> Callable[..., Routing]:
    if device.type == "cuda":
        from quire.kernels.triton.moe_routing import softmax_top_k
    else:
        from quire.kernels.reference.moe import softmax_top_k
    return softmax_top_k


def sparse_mixer(logits: Tensor, jitter: float) -> Routing:
    """Two experts of logits [T, experts], one after the other (arXiv:2310.00811, arXiv:2409.12136).

    An expert's weight is its share among those that are nearly as good; what was chosen first does
    not count for the second.
    """
    scores = logits.float()
    left, weights, experts = scores, [], []
    for _ in range(2):
        best, expert = left.max(dim=-1, keepdim=True)
        is_far = (best - scores) / scores.abs().maximum(best) > 2 * jitter
        shares = left.masked_fill(is_far, _HIDDEN).softmax(dim=-1)
        weights.append(shares.gather(1, expert))
        experts.append(expert)
        left = left.scatter(1, expert, _HIDDEN)
    return Routing(torch.cat(weights, dim=1), torch.cat(experts, dim=1).int())


def _grouped(routing: GroupedRouting, top_k: int, correction: Tensor | None) -> Route:
    """The best groups, then the best experts in them (arXiv:2405.04434, arXiv:2412.19437)."""
    score = _SCORES[routing.score]
    to_ranks: list[Map] = []
    if correction is not None:
        to_ranks.append(lambda scores: scores + correction)
    if routing.top_groups < routing.num_groups:
        to_ranks.append(partial(_only_best_groups, routing=routing))
    to_weights: list[Map] = [_shares] if routing.renormalise else []
    to_weights.append(lambda chosen: chosen * routing.scale)

    def route(logits: Tensor) -> Routing:
        scores = score(logits.float())
        experts = _through(to_ranks, scores).topk(top_k, dim=1).indices
        return Routing(_through(to_weights, scores.gather(1, experts)), experts.int())

    return route


def _only_best_groups(ranks: Tensor, routing: GroupedRouting) -> Tensor:
    """``ranks`` [T, experts], with experts outside the best groups below all others."""
    by_group = ranks.unflatten(1, (routing.num_groups, -1))
    group_ranks = _GROUP_RANKS[routing.group_rank](by_group)
    kept = group_ranks.topk(routing.top_groups, dim=1).indices
    is_hidden = torch.ones_like(group_ranks, dtype=torch.bool).scatter(1, kept, False)
    return by_group.masked_fill(is_hidden.unsqueeze(2), _HIDDEN).flatten(1)


def _shares(chosen: Tensor) -> Tensor:
    return chosen / (chosen.sum(dim=1, keepdim=True) + _TINY)


def _through(maps: list[Map], x: Tensor) -> Tensor:
    for one in maps:
        x = one(x)
    return x


_SCORES: dict[str, Map] = {
    "softmax": lambda logits: logits.softmax(dim=1),
    "sigmoid": torch.sigmoid,
}
# Scores [T, groups, experts] -> ranks of the groups [T, groups].
_GROUP_RANKS: dict[str, Map] = {
    "best": lambda scores: scores.amax(dim=2),
    "best_two": lambda scores: scores.topk(2, dim=2).values.sum(dim=2),
}
