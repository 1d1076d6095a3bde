from __future__ import annotations

import numpy as np
import pytest
import torch

from quire.sampling import logprobs
from quire.sampling.logprobs import token_logprobs

LOGITS = torch.randn(13, 700, generator=torch.Generator().manual_seed(2)) * 4
TARGETS = torch.arange(13) * 50


def test_values_are_the_log_softmax_of_the_logits() -> None:
    found = token_logprobs(LOGITS, TARGETS, 5)
    expected = LOGITS.double().log_softmax(dim=1)
    best = expected.topk(5, dim=1)
    torch.testing.assert_close(
        found.logprobs[:, 0].double(), expected.gather(1, TARGETS[:, None])[:, 0], rtol=0, atol=2e-6
    )
    torch.testing.assert_close(found.logprobs[:, 1:].double(), best.values, rtol=0, atol=2e-6)
    assert torch.equal(found.token_ids[:, 0], TARGETS)
    assert torch.equal(found.token_ids[:, 1:], best.indices)


def test_rank_counts_the_strictly_more_likely_tokens() -> None:
    logits = torch.tensor([[3.0, 1.0, 3.0, 2.0]]).repeat(4, 1)
    assert token_logprobs(logits, torch.arange(4), 0).ranks.tolist() == [1, 4, 1, 3]


@pytest.mark.parametrize("k", [-1, 700, 9999])
def test_whole_vocabulary_sums_to_one(k: int) -> None:
    found = token_logprobs(LOGITS, TARGETS, k)
    assert found.token_ids.shape == (13, 701)
    torch.testing.assert_close(found.logprobs[:, 1:].exp().sum(dim=1), torch.ones(13))
    assert torch.equal(found.token_ids[:, 1:].sort(dim=1).values[0], torch.arange(700))


def test_no_candidates_leave_the_token_itself() -> None:
    found = token_logprobs(LOGITS, TARGETS, 0)
    assert torch.equal(found.token_ids, TARGETS[:, None])


def test_bounded_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = token_logprobs(LOGITS, TARGETS, 3)
    monkeypatch.setattr(logprobs, "_MAX_TEMPORARY_BYTES", 4 * 700 * 8)  # four rows at a time
    blocks = token_logprobs(LOGITS, TARGETS, 3)
    assert torch.equal(whole.token_ids, blocks.token_ids)
    assert torch.equal(whole.logprobs, blocks.logprobs)
    assert torch.equal(whole.ranks, blocks.ranks)


def test_host_record_has_the_types_of_a_step_result() -> None:
    host = token_logprobs(LOGITS, TARGETS, 2).to_host()
    assert (host.token_ids.dtype, host.logprobs.dtype, host.ranks.dtype) == (
        np.int32,
        np.float32,
        np.int32,
    )
    assert host.token_ids.shape == (13, 3) and host.ranks.shape == (13,)


def test_forbidden_token_has_no_probability() -> None:
    logits = torch.tensor([[0.0, -torch.inf]])
    found = token_logprobs(logits, torch.tensor([1]), 1)
    assert found.logprobs.tolist() == [[-torch.inf, 0.0]]
    assert found.ranks.tolist() == [2]
