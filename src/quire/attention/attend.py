"""Attention of gathered tensors: from q, k, v and a mask to the weighted sum, in torch operations.

q is [N, K, Q, D] with the G query heads of a KV head folded into Q, k and v are [N, K, L, D], the
mask [N, 1 or K, Q, L] is added to the scores. Scores are float32 whatever the dtype: biases of keys
may make them large (as in Qwen2), and only their differences count.

Measured on 2 cores of Zen 5: SDPA is faster than batched products in float32, and as fast in
bfloat16 (scores in bfloat16 would save a fifth to a third). Where values are part of the keys it
has no fused kernel, and takes 2-3x as long in bfloat16.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from quire.attention.backend import AttentionProblem
from quire.kernels.cpu import onednn

# (q, k, v, mask) -> [N, K, Q, D]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
# (q, k, v, mask or None) -> [N, K, Q, D] and the scores' log-sum-exp [N, K, Q], for `merge`
AttendPart = Callable[[Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]

_MAX_SCORES = 1 << 24  # the most that are held at once, in float32


def build_attend(problem: AttentionProblem) -> Attend:
    """The fastest function that can solve the problem."""
    has_fast_products = problem.dtype == torch.bfloat16 and not onednn.why_not(
        problem.device, problem.dtype
    )
    is_fused = problem.value_dim is None
    if problem.soft_cap is None and (is_fused or not has_fast_products):
        return _sdpa(problem.scale)
    finish = _finish(problem)

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        parts, keys = [], k.float()
        for queries, its_mask in _slices(q, k, mask):
            weights = finish(_scores(queries, keys), its_mask).softmax(dim=-1)
            parts.append(_weighted_sum(weights, v))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    return attend


def build_attend_part(problem: AttentionProblem) -> AttendPart:
    """A function for attention to some of the tokens, to be merged with that to the others."""
    finish = _finish(problem)
    no_mask = torch.zeros(1, 1, 1, 1)

    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        parts, sums, keys = [], [], k.float()
        for queries, its_mask in _slices(q, k, no_mask if mask is None else mask):
            scores = finish(_scores(queries, keys), its_mask)
            log_sum = scores.logsumexp(dim=-1, keepdim=True)
            parts.append(_weighted_sum((scores - log_sum).exp_(), v))
            sums.append(log_sum.squeeze(-1))
        return torch.cat(parts, dim=2), torch.cat(sums, dim=2)

    return attend


def merge(one: Tensor, one_log_sum: Tensor, other: Tensor, other_log_sum: Tensor) -> Tensor:
    """Attention to all tokens, from results [*, D] and log-sum-exps [*] of two parts of them."""
    share = torch.sigmoid(one_log_sum - other_log_sum).unsqueeze(-1)
    return torch.lerp(other.float(), one.float(), share).to(one.dtype)


def _sdpa(scale: float) -> Attend:
    def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

    return attend


def _slices(q: Tensor, k: Tensor, mask: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Queries and their masks, so few at a time that the scores stay small."""
    num_batches, num_heads, num_queries, _ = q.shape
    at_once = max(1, _MAX_SCORES // (num_batches * num_heads * k.shape[2]))
    if at_once >= num_queries:
        return [(q, mask)]
    masks = mask.expand(-1, -1, num_queries, -1).split(at_once, dim=2)
    return list(zip(q.split(at_once, dim=2), masks, strict=True))


def _scores(q: Tensor, keys: Tensor) -> Tensor:
    """q keysᵀ, float32 [N, K, Q, L]; ``keys`` are float32."""
    scores = torch.bmm(q.flatten(0, 1).float(), keys.flatten(0, 1).transpose(1, 2))
    return scores.unflatten(0, q.shape[:2])


def _weighted_sum(weights: Tensor, v: Tensor) -> Tensor:
    """[N, K, Q, D], in the dtype of v."""
    total = torch.bmm(weights.to(v.dtype).flatten(0, 1), v.flatten(0, 1))
    return total.unflatten(0, v.shape[:2])


# (raw scores, mask) -> scores, scaled, capped and masked; float32
_Finish = Callable[[Tensor, Tensor], Tensor]


def _finish(problem: AttentionProblem) -> _Finish:
    scale, cap = problem.scale, problem.soft_cap
    if cap is None:
        return lambda scores, mask: torch.add(mask, scores, alpha=scale)
    return lambda scores, mask: (scores * (scale / cap)).tanh_().mul_(cap).add_(mask)
