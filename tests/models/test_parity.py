"""Every row of the parity table gives the logits that transformers gives, in whatever steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from quire.models.decoder import Decoder
from quire.models.fallback.model import TransformersModel
from quire.models.loading import build_model
from tests.fakes.batches import FakeRows
from tests.models.configs import (
    FALLBACK_ROWS,
    PARITY_ROWS,
    ParityRow,
    engine_config,
    save_random_model,
)

_TOLERANCE = 2e-4  # of the largest logit
_LENGTHS = (23, 9, 37, 1)


@dataclass(frozen=True, slots=True)
class Case:
    decoder: Decoder | TransformersModel
    rows: list[list[int]]
    expected: list[Tensor]  # per row, logits [tokens, V]


@pytest.fixture(scope="module", params=(*PARITY_ROWS, *FALLBACK_ROWS), ids=lambda row: row.id)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    row: ParityRow = request.param
    folder: Path = tmp_path_factory.mktemp(row.id)
    reference = save_random_model(row, folder)
    loaded = build_model(engine_config(folder))
    assert loaded.report.unused == ()
    generator = torch.Generator().manual_seed(1)
    vocab_size = reference.config.vocab_size
    rows = [
        torch.randint(vocab_size, (length,), generator=generator).tolist() for length in _LENGTHS
    ]
    return Case(loaded.model, rows, [_reference_logits(reference, tokens) for tokens in rows])


def _reference_logits(model: PreTrainedModel, tokens: list[int]) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


def _check(case: Case, steps: list[dict[int, int]], block_size: int = 4) -> None:
    """Run the steps (row -> tokens computed) and compare every token's logits."""
    rows = FakeRows(case.decoder.kv_layout, case.rows, block_size=block_size)
    for step in steps:
        batch, places = rows.batch(step)
        with torch.inference_mode():
            logits = case.decoder.logits(case.decoder.forward(batch))
        assert logits.dtype == torch.float32
        for got, (row, position) in zip(logits, places, strict=True):
            expected = case.expected[row][position]
            difference = (got - expected).abs().max() / expected.abs().max()
            assert difference < _TOLERANCE, f"row {row}, position {position}: {difference:.2e}"
    assert rows.num_computed == [len(tokens) for tokens in case.rows]


def test_whole_prompt_in_one_step(case: Case) -> None:
    _check(case, [{0: 23, 1: 9, 2: 37, 3: 1}])


def test_prompt_in_chunks_that_cross_blocks(case: Case) -> None:
    _check(case, [{0: 5, 2: 11}, {0: 8, 2: 3}, {0: 10, 2: 23, 1: 9, 3: 1}])


def test_one_token_at_a_time(case: Case) -> None:
    steps = [{row: 1 for row, length in enumerate(_LENGTHS) if step < length} for step in range(37)]
    _check(case, steps)


def test_rows_at_different_stages_in_one_step(case: Case) -> None:
    _check(
        case,
        [
            {0: 20},
            {0: 1, 1: 4},
            {0: 1, 1: 1, 2: 30},
            {1: 1, 2: 5, 3: 1},
            {0: 1, 1: 3, 2: 1},
            {2: 1},
        ],
        block_size=16,
    )
