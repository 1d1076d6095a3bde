from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quire.sampling import ops
from tests.unit.sampling.harness import assert_distributed, filtered

SIZES = [1, 7, 255, 256, 257, 1000, 3333]


def random_logits(rows: int, vocab_size: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, vocab_size, generator=torch.Generator().manual_seed(seed)) * 3


@pytest.mark.parametrize("vocab_size", SIZES)
def test_argmax_is_the_first_largest(vocab_size: int) -> None:
    logits = random_logits(9, vocab_size).round()  # many ties
    assert torch.equal(ops.argmax(logits), logits.argmax(dim=1))


def test_argmax_finds_the_last_token_and_survives_forbidden_rows() -> None:
    logits = torch.full((2, 300), -torch.inf)
    logits[0, 299] = -5.0
    assert ops.argmax(logits).tolist() == [299, 0]


@pytest.mark.parametrize("vocab_size", SIZES)
def test_log_sum_exp_is_exact(vocab_size: int) -> None:
    logits = random_logits(5, vocab_size)
    expected = logits.double().logsumexp(dim=1, keepdim=True)
    torch.testing.assert_close(ops.log_sum_exp(logits).double(), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("vocab_size", SIZES)
def test_rows_do_not_depend_on_their_neighbours(vocab_size: int) -> None:
    logits = random_logits(17, vocab_size)
    temperature = torch.linspace(0.2, 2.0, 17)
    numbers = torch.linspace(0.0, 1.0 - 1e-12, 17, dtype=torch.float64)
    together = ops.draw(ops.to_weights(logits, temperature), numbers)
    for row in range(17):
        line = slice(row, row + 1)
        alone = ops.draw(ops.to_weights(logits[line].clone(), temperature[line]), numbers[line])
        assert alone.item() == together[row].item()
        assert torch.equal(ops.log_sum_exp(logits[line].clone()), ops.log_sum_exp(logits)[line])


@pytest.mark.parametrize("vocab_size", [5, 300])
def test_draw_follows_the_weights(vocab_size: int) -> None:
    count = 30_000
    weights = torch.rand(vocab_size, generator=torch.Generator().manual_seed(1)) + 0.1
    weights[::3] = 0.0
    numbers = (torch.arange(count, dtype=torch.float64) * 0.6180339887498949) % 1.0
    tokens = ops.draw(weights.repeat(count, 1), numbers)
    assert_distributed(tokens, weights / weights.sum())


@pytest.mark.parametrize("number", [0.0, 0.5, 1.0 - 2**-53])
@pytest.mark.parametrize("only", [0, 1, 255, 256, 511, 599])
def test_draw_takes_the_only_possible_token(number: float, only: int) -> None:
    weights = torch.zeros(1, 600)
    weights[0, only] = 1e-30
    assert ops.draw(weights, torch.tensor([number], dtype=torch.float64)).item() == only


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 0.3, 1.0]), min_size=1, max_size=600),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_draw_is_the_inverse_of_the_cumulative_sum(values: list[float], number: float) -> None:
    weights = torch.tensor([values])
    token = int(ops.draw(weights, torch.tensor([number], dtype=torch.float64)))
    if not any(values):
        assert token == 0
        return
    assert weights[0, token] > 0
    ends = weights[0].double().cumsum(0)
    target = number * ends[-1]
    assert ends[token] > target - 1e-5
    assert ends[token] - weights[0, token] <= target + 1e-5


def kept_tokens(weights: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor:
    least = ops.thresholds(
        weights,
        torch.tensor([top_k]),
        torch.tensor([top_p], dtype=torch.float64),
        torch.tensor([min_p]),
    )
    return (weights >= least.unsqueeze(1))[0] & (weights[0] > 0)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocab_size=st.integers(1, 400),
    top_k=st.integers(0, 500),
    top_p=st.floats(0.01, 1.0),
    min_p=st.sampled_from([0.0, 0.01, 0.2, 1.0]),
)
def test_filters_keep_what_a_full_sort_keeps(
    seed: int, vocab_size: int, top_k: int, top_p: float, min_p: float
) -> None:
    weights = ops.to_weights(random_logits(1, vocab_size, seed), torch.ones(1))
    kept = kept_tokens(weights, top_k, top_p, min_p)
    # Rounding may move the border of top_p by a hair: between slightly less and slightly more.
    shares = weights[0].double() / weights[0].double().sum()
    least = filtered(shares, top_k=top_k, top_p=max(0.0, top_p - 1e-6) or 1e-9, min_p=min_p) > 0
    most = filtered(shares, top_k=top_k, top_p=top_p + 1e-6, min_p=min_p) > 0
    assert (least <= kept).all()
    assert (kept <= most).all()


def test_equals_at_the_border_are_all_kept() -> None:
    weights = torch.tensor([[0.5, 1.0, 0.25, 0.5, 0.25, 0.5]])
    assert kept_tokens(weights, 2, 1.0, 0.0).nonzero().flatten().tolist() == [0, 1, 3, 5]
    assert kept_tokens(weights, 0, 0.4, 0.0).nonzero().flatten().tolist() == [0, 1, 3, 5]
    assert kept_tokens(weights, 0, 1.0, 0.5).nonzero().flatten().tolist() == [0, 1, 3, 5]
    assert kept_tokens(weights, 0, 0.3, 0.0).nonzero().flatten().tolist() == [1]


def test_top_p_reached_exactly_needs_no_further_token() -> None:
    weights = torch.tensor([[0.25, 1.0, 0.5, 0.25]])  # sums of powers of two have no rounding
    for top_p, kept in ((0.5, [1]), (0.51, [1, 2]), (0.75, [1, 2]), (0.76, [0, 1, 2, 3])):
        found = kept_tokens(weights, 0, top_p, 0.0)
        assert found.nonzero().flatten().tolist() == kept


def test_blocks_cover_all_rows_once() -> None:
    rows = list(range(11))
    assert [one for block in ops.row_blocks(11, 4) for one in rows[block]] == rows
    assert list(ops.row_blocks(0, 4)) == []


def test_weights_are_exponentials_or_nothing() -> None:
    logits = random_logits(4, 2000) * torch.tensor([1.0, 5.0, 30.0, 200.0]).unsqueeze(1)
    logits[:, ::7] = -torch.inf
    weights = ops.to_weights(logits, torch.tensor([1.0, 0.5, 1.0, 2.0]))
    exponents = (logits - logits.amax(1, keepdim=True)).double()
    exact = (exponents / torch.tensor([[1.0], [0.5], [1.0], [2.0]])).exp()
    is_normal = exact > 2e-38
    torch.testing.assert_close(weights[is_normal], exact[is_normal].float(), rtol=5e-5, atol=0)
    assert not weights[exact < 1.6e-38].any()
    assert not weights[:, ::7].any()
    sums = ops.log_sum_exp(logits).squeeze(1).double()
    torch.testing.assert_close(sums, logits.double().logsumexp(1), rtol=1e-6, atol=0)
