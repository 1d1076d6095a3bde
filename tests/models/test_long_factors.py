"""Longrope beyond the trained length: there, every sequence of the engine has the long factors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from quire.models.loading import build_model
from tests.fakes.batches import FakeRows
from tests.models.configs import engine_config, save_random_model
from tests.models.row import SMALL, parity_row

_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0, 1.1, 1.3, 1.6],
    "long_factor": [1.2, 2.0, 3.0, 4.5],
    "original_max_position_embeddings": 16,
}


@pytest.mark.parametrize("explicit", [{}, {"attention_factor": 1.3}, {"factor": 3.0}])
def test_long_prompts_have_the_logits_of_transformers(
    explicit: dict[str, float], tmp_path: Path
) -> None:
    row = parity_row(
        "Phi3ForCausalLM",
        "long",
        transformers.Phi3Config,
        **{**SMALL, "pad_token_id": 0},
        original_max_position_embeddings=16,
        rope_parameters={**_ROPE, **explicit},
    )
    reference = save_random_model(row, tmp_path)
    decoder = build_model(engine_config(tmp_path)).model
    tokens = torch.randint(97, (37,), generator=torch.Generator().manual_seed(0))
    batch, _ = FakeRows(decoder.kv_layout, [tokens.tolist()], block_size=16).batch({0: 37})
    with torch.inference_mode():
        got = decoder.logits(decoder.forward(batch))
        expected = reference(tokens.unsqueeze(0)).logits[0]
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-4 * float(expected.abs().max()))
