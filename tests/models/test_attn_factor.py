"""YaRN's ``attn_factor`` multiplies the factor of cos and sin, though transformers ignores it."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import pytest
import transformers

from quire.models.loading import build_model
from tests.models.configs import engine_config, save_random_model
from tests.models.loaded import assert_whole_and_equal
from tests.models.row import SMALL, parity_row

_FACTOR = 4.0
_YARN = {"rope_type": "yarn", "factor": _FACTOR, "original_max_position_embeddings": 16}
_PUBLISHED = 0.8782488562869419  # of DeepSeek-R1-0528-Qwen3-8B: it undoes YaRN's own factor


@pytest.mark.parametrize("attn_factor", [_PUBLISHED, 1.5, 1])
def test_attn_factor_multiplies_what_transformers_multiplies_by(
    attn_factor: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    product = attn_factor * (0.1 * math.log(_FACTOR) + 1)
    assert product == pytest.approx(1.0) or attn_factor != _PUBLISHED
    rope = {**_YARN, "rope_theta": 1000.0, "attention_factor": product}
    row = parity_row(
        "Qwen3ForCausalLM", "yarn", transformers.Qwen3Config, **SMALL, head_dim=8,
        rope_parameters=rope,
    )  # fmt: skip
    reference = save_random_model(row, tmp_path)
    file = tmp_path / "config.json"
    written = json.loads(file.read_text())
    del written["rope_parameters"]
    scaling = {**_YARN, "attn_factor": attn_factor}
    file.write_text(json.dumps({**written, "rope_theta": 1000.0, "rope_scaling": scaling}))
    caplog.set_level(logging.INFO)
    assert_whole_and_equal(build_model(engine_config(tmp_path)), reference)
    told = [one.getMessage() for one in caplog.records if "attn_factor" in one.getMessage()]
    expected = f"attn_factor = {attn_factor} of rotary positions multiplies cos and sin, "
    assert len(told) == (attn_factor != 1)
    assert all(one.startswith(expected) and "transformers ignores it" in one for one in told)
