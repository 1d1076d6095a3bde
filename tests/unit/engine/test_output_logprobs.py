"""Arrays of log-probabilities become dicts, in which every token has a rank of its own."""

from __future__ import annotations

import pytest
import torch

from quire.engine.output_logprobs import to_dicts
from quire.sampling.logprobs import token_logprobs

_LOGITS = torch.tensor([[3.0, 1.0, 1.0, 1.0, 1.0, 0.0]])  # four tokens that are equally likely


def _ranks(token_id: int, k: int) -> dict[int, int | None]:
    tensors = token_logprobs(_LOGITS, torch.tensor([token_id]), k)
    (found,) = to_dicts(tensors.to_host(), None)
    return {token: one.rank for token, one in found.items()}


@pytest.mark.parametrize("token_id", range(6))
@pytest.mark.parametrize("k", range(1, 7))
def test_no_rank_is_missing_or_there_twice_among_the_best(token_id: int, k: int) -> None:
    ranks = _ranks(token_id, k)
    assert next(iter(ranks)) == token_id
    own = ranks[token_id]
    assert own is not None
    is_behind = own > k
    assert sorted(ranks.values(), key=lambda rank: rank or 0) == [
        *range(1, k + 1),
        *([own] if is_behind else []),
    ]


def test_a_token_among_the_best_has_its_place_there() -> None:
    tensors = token_logprobs(_LOGITS, torch.tensor([4]), 5)
    place = tensors.token_ids[0, 1:].tolist().index(4) + 1
    assert _ranks(4, 5)[4] == place


def test_a_token_alone_is_ranked_by_those_more_likely() -> None:
    assert _ranks(4, 0) == {4: 2}
    assert _ranks(5, 0) == {5: 6}
    assert _ranks(5, 2)[5] == 6


def test_a_token_as_likely_as_the_best_but_not_among_them_comes_behind() -> None:
    left_out = ({1, 2, 3, 4} - set(_ranks(0, 2))).pop()
    assert _ranks(left_out, 2)[left_out] == 3
