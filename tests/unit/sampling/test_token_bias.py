from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    SequenceBiasLogitsProcessor,
)

from quire.request import RowSampling
from quire.sampling import token_bias
from quire.sampling.token_bias import AllowedTokens, BadWords, LogitBias
from tests.unit.sampling.harness import Rows, logprobs_of

VOCAB_SIZE = 12
LOGITS = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(6))


def processed(sampling: dict[str, object], prompt: Sequence[int], output: Sequence[int]) -> Tensor:
    """Log-probabilities [V] of the logits after the processors; other rows sit beside it."""
    rows = Rows(VOCAB_SIZE)
    greedy = RowSampling(temperature=0.0)
    shown = RowSampling(
        temperature=0.0,
        num_logprobs=-1,
        processed_logprobs=True,
        **sampling,  # type: ignore[arg-type]
    )
    rows.join(0, greedy)
    rows.join(1, shown, prompt=prompt, output=output)
    rows.join(2, greedy)
    result = rows.sample(LOGITS.repeat(3, 1), [0, 1, 2])
    assert result.token_ids[[0, 2]].tolist() == [int(LOGITS.argmax())] * 2
    record = logprobs_of(result)[1]
    values = torch.empty(VOCAB_SIZE)
    values[record.token_ids[0, 1:].tolist()] = torch.from_numpy(record.logprobs[0, 1:])
    return values


def test_logit_bias_is_added() -> None:
    bias = {3: 2.5, 0: -4.0}
    processor = SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()})
    expected = processor(torch.tensor([[1]]), LOGITS[None].clone())[0].log_softmax(0)
    found = processed({"logit_bias": tuple(bias.items())}, [1], [])
    torch.testing.assert_close(found, expected)


def test_a_bias_below_all_floats_forbids() -> None:
    found = processed({"logit_bias": ((3, -1e308), (0, float("-inf")))}, [1], [])
    assert found.isinf().nonzero().flatten().tolist() == [0, 3]


def test_only_allowed_tokens_are_left() -> None:
    found = processed({"allowed_token_ids": (2, 9)}, [1], [4])
    assert found.isfinite().nonzero().flatten().tolist() == [2, 9]
    torch.testing.assert_close(found[[2, 9]], LOGITS[[2, 9]].log_softmax(0))


def test_bias_can_favour_among_allowed_tokens_only() -> None:
    found = processed({"allowed_token_ids": (2, 9), "logit_bias": ((5, 50.0), (9, 60.0))}, [1], [])
    assert found.argmax() == 9
    assert found[5] == -torch.inf


@pytest.mark.parametrize("num_output", range(6))
def test_stop_tokens_wait_for_min_tokens(num_output: int) -> None:
    stop = [4, 7]
    processor = MinNewTokensLengthLogitsProcessor(2, 4, stop, device="cpu")
    tokens = torch.tensor([[1] * (2 + num_output)])
    expected = processor(tokens, LOGITS[None].clone())[0].log_softmax(0)
    for ids in ({"stop_token_ids": (4, 7)}, {"stop_token_ids": (4,), "ignored_eos_ids": (7,)}):
        found = processed({"min_tokens": 4, **ids}, [1, 1], [1] * num_output)
        torch.testing.assert_close(found, expected)


def test_rows_leave_their_min_tokens_one_by_one() -> None:
    rows = Rows(VOCAB_SIZE)
    best = int(LOGITS.argmax())
    for row, num_output in enumerate([2, 3, 4]):
        sampling = RowSampling(temperature=0.0, min_tokens=3, stop_token_ids=(best,))
        rows.join(row, sampling, prompt=[1, 1], output=[1] * num_output)
    tokens = rows.sample(LOGITS.repeat(3, 1), [0, 1, 2]).token_ids
    assert (tokens == best).tolist() == [False, True, True]


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=5),
    output=st.lists(st.integers(0, 3), max_size=8),
)
def test_bad_words_equal_those_of_transformers(words: list[list[int]], output: list[int]) -> None:
    prompt = [11]  # in no bad word: transformers also looks at the prompt
    unique = [list(word) for word in dict.fromkeys(map(tuple, words))]
    processor = NoBadWordsLogitsProcessor(unique)
    expected = processor(torch.tensor([prompt + output]), LOGITS[None].clone())[0].log_softmax(0)
    found = processed({"bad_words_token_ids": tuple(map(tuple, words))}, prompt, output)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("make", "name", "asked"),
    [
        (LogitBias, "logit_bias", ((2, 1.0), (3, -1.0))),
        (AllowedTokens, "allowed_token_ids", (2, 3)),
        (BadWords, "bad_words_token_ids", ((2, 3), (4,))),
    ],
)
def test_completions_of_a_request_share_what_was_made_of_its_parameters(
    make: type[LogitBias | AllowedTokens | BadWords],
    name: str,
    asked: tuple[Any, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[Sequence[int]] = []

    def token_ids(tokens: Sequence[int]) -> np.ndarray:
        made.append(tokens)
        return np.array(tokens, dtype=np.int64)

    def join(row: int, given: tuple[Any, ...]) -> None:
        sampling: Any = RowSampling(**{name: given}, seed=row)
        joined: Any = SimpleNamespace(row=row, sampling=sampling)
        assert processor.add_request(joined)

    monkeypatch.setattr(token_bias, "_token_ids", token_ids)
    processor = make(torch.device("cpu"))
    join(0, asked)
    num_made = len(made)
    assert num_made > 0
    join(1, asked)
    assert len(made) == num_made
    join(2, asked[:1])
    assert len(made) == 2 * num_made


def test_bad_word_does_not_begin_in_the_prompt() -> None:
    found = processed({"bad_words_token_ids": ((1, 2),)}, [1], [])
    assert found[2].isfinite()
    found = processed({"bad_words_token_ids": ((1, 2),)}, [3], [1])
    assert found[2] == -torch.inf


def test_rows_with_words_of_different_lengths_do_not_mix() -> None:
    rows = Rows(VOCAB_SIZE)
    words = [((1, 2, 3),), ((5,), (3, 4)), ((3,),)]
    for row, of_row in enumerate(words):
        sampling = RowSampling(
            temperature=0.0, num_logprobs=-1, bad_words_token_ids=of_row, processed_logprobs=True
        )
        rows.join(row, sampling, prompt=[9], output=[1, 2] if row == 0 else [3])
    found = logprobs_of(rows.sample(LOGITS.repeat(3, 1), [2, 0, 1]))
    forbidden = {
        row: sorted(
            token
            for token, value in zip(record.token_ids[0, 1:], record.logprobs[0, 1:], strict=True)
            if value == -torch.inf
        )
        for row, record in found.items()
    }
    assert forbidden == {0: [3], 1: [4, 5], 2: [3]}
