"""Random variants of every family give the logits that transformers gives, in random steps.

A few of them, always the same ones, in the ordinary run; many others in the soak.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quire.models.loading import build_model
from tests.fakes.batches import FakeRows
from tests.models.configs import engine_config, save_random_model
from tests.models.row import ParityRow
from tests.models.variants.draws import MAX_LEN
from tests.models.variants.families import ARCHITECTURES, variants

_TOLERANCE = 2e-4  # of the largest logit
_LENGTHS = (21, 8)

Draw = Callable[[st.SearchStrategy[Any]], Any]


@st.composite
def _steps(draw: Draw) -> list[dict[int, int]]:
    """Row -> tokens computed, of two texts that advance at their own pace."""
    left, steps = dict(enumerate(_LENGTHS)), []
    while any(left.values()):
        wanted = {row: draw(st.integers(1, num)) for row, num in left.items() if num}
        step = {row: num for row, num in wanted.items() if len(wanted) == 1 or draw(st.booleans())}
        step = step or wanted
        left = {row: num - step.get(row, 0) for row, num in left.items()}
        steps.append(step)
    return steps


def _check(row: ParityRow, steps: list[dict[int, int]], block_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reference = save_random_model(row, Path(folder))
        config = engine_config(Path(folder), max_model_len=MAX_LEN)
        loaded = build_model(config)
    assert loaded.report.unused == ()
    generator = torch.Generator().manual_seed(1)
    vocab_size = reference.config.vocab_size
    texts = [
        torch.randint(vocab_size, (length,), generator=generator).tolist() for length in _LENGTHS
    ]
    with torch.inference_mode():
        expected = [reference(torch.tensor([text])).logits[0] for text in texts]
    rows = FakeRows(loaded.model.kv_layout, texts, block_size=block_size)
    for step in steps:
        batch, places = rows.batch(step)
        with torch.inference_mode():
            logits = loaded.model.logits(loaded.model.forward(batch))
        for got, (text, position) in zip(logits, places, strict=True):
            wanted = expected[text][position]
            difference, size = float((got - wanted).abs().max()), float(wanted.abs().max())
            assert difference <= _TOLERANCE * size, (
                f"text {text}, position {position}: {difference:.2e} of {size:.2e}"
            )


def _draws(architecture: str) -> Any:
    return given(variants(architecture), _steps(), st.sampled_from([1, 4, 16]))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_few_variants(architecture: str) -> None:
    settings(max_examples=3, deadline=None, derandomize=True, database=None)(
        _draws(architecture)(_check)
    )()


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_many_variants(architecture: str) -> None:
    settings(
        max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )(_draws(architecture)(_check))()
