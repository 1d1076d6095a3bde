"""A model whose logits are not numbers is told of when it is loaded, whatever loads it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire import LLM
from quire.errors import UnsupportedModelError
from tests.fakes.engines import engine_args
from tests.models.configs import PARITY_ROWS, save_random_model

_LLAMA = next(row for row in PARITY_ROWS if row.architecture == "LlamaForCausalLM")


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    save_random_model(_LLAMA, tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"] = weights["model.norm.weight"] * torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    return tmp_path


def test_a_program_is_warned_once(damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    with LLM(**vars(engine_args(damaged))):
        told = [one for one in caplog.records if "are not numbers (NaN)" in one.getMessage()]
    assert [one.levelno for one in told] == [logging.WARNING]


def test_through_transformers_it_is_refused_as_what_it_is(damaged: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"not numbers \(NaN\) in transformers' own"):
        LLM(**vars(engine_args(damaged, model_impl="transformers")))
