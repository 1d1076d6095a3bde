from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from quire.request import RowSampling
from quire.sampling import penalties
from tests.unit.sampling.harness import Rows, logprobs_of

VOCAB_SIZE = 30
PROMPTS = [[1, 2, 2, 3], [4], [7, 7]]
OUTPUTS = [[2, 5, 5, 5], [], [9, 7, 9, 9, 9, 9, 9, 0]]
LOGITS = torch.randn(3, VOCAB_SIZE, generator=torch.Generator().manual_seed(8)) * 2


def penalised(**values: float) -> torch.Tensor:
    """The processed log-probabilities of every token, which show the logits after penalties."""
    rows = Rows(VOCAB_SIZE)
    for row, (prompt, output) in enumerate(zip(PROMPTS, OUTPUTS, strict=True)):
        sampling = RowSampling(temperature=0.0, num_logprobs=-1, processed_logprobs=True, **values)
        rows.join(row, sampling, prompt=prompt, output=output)
    found = logprobs_of(rows.sample(LOGITS, range(3)))
    table = torch.empty(3, VOCAB_SIZE)
    for row, record in found.items():
        table[row, record.token_ids[0, 1:].tolist()] = torch.from_numpy(record.logprobs[0, 1:])
    return table


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
def test_repetition_penalty_equals_that_of_transformers(penalty: float) -> None:
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    expected = torch.cat(
        [
            processor(torch.tensor([prompt + output]), LOGITS[row : row + 1].clone())
            for row, (prompt, output) in enumerate(zip(PROMPTS, OUTPUTS, strict=True))
        ]
    )
    torch.testing.assert_close(penalised(repetition_penalty=penalty), expected.log_softmax(1))


@pytest.mark.parametrize("frequency", [0.0, 0.7, -1.5])
@pytest.mark.parametrize("presence", [0.0, 1.1, -2.0])
@pytest.mark.parametrize("repetition", [1.0, 1.5])
def test_penalties_follow_their_formula(
    frequency: float, presence: float, repetition: float
) -> None:
    expected = LOGITS.clone()
    for row, (prompt, output) in enumerate(zip(PROMPTS, OUTPUTS, strict=True)):
        counts = Counter(output)
        for token in {*prompt, *output}:
            logit = float(LOGITS[row, token])
            logit = logit / repetition if logit > 0 else logit * repetition
            logit -= frequency * counts[token] + presence * (counts[token] > 0)
            expected[row, token] = logit
    found = penalised(
        frequency_penalty=frequency, presence_penalty=presence, repetition_penalty=repetition
    )
    torch.testing.assert_close(found, expected.log_softmax(1))


def test_blocks_of_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = penalised(frequency_penalty=0.5, repetition_penalty=1.2)
    monkeypatch.setattr(penalties, "_MAX_TEMPORARY_BYTES", 1)
    assert torch.equal(penalised(frequency_penalty=0.5, repetition_penalty=1.2), whole)


def test_forbidden_tokens_stay_forbidden() -> None:
    rows = Rows(VOCAB_SIZE)
    sampling = RowSampling(
        temperature=0.0,
        presence_penalty=-2.0,
        repetition_penalty=0.01,
        bad_words_token_ids=((5,),),
    )
    rows.join(0, sampling, prompt=[1], output=[5, 5])
    logits = torch.zeros(1, VOCAB_SIZE)
    logits[0, 5] = 100.0
    assert rows.sample(logits, [0]).token_ids.item() != 5
