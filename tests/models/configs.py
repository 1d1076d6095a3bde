"""The parity table: tiny random models of every architecture that Quire serves, as data.

``PARITY_ROWS`` says which; ``save_random_model`` writes one as ``transformers`` would publish it;
``engine_config`` makes Quire load it. Adding a model is adding a row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel

from quire.config import CacheConfig, EngineConfig, LoadConfig, ModelConfig
from quire.models.loading import choose_implementation
from tests.models.row import ParityRow
from tests.models.rows import core, dense, experts, fallback, parallel

PARITY_ROWS: tuple[ParityRow, ...] = (
    *core.ROWS,
    *dense.ROWS,
    *parallel.ROWS,
    *experts.ROWS,
)
# Of models that Quire has no file for: they must pass the same tests.
FALLBACK_ROWS = fallback.ROWS


def save_random_model(row: ParityRow, folder: Path, *, seed: int = 0) -> PreTrainedModel:
    """A random model of the row in float32, saved to ``folder``; also returned, to compare with."""
    torch.manual_seed(seed)
    config = row.make_config()
    config.architectures = [row.architecture]
    config._experts_implementation = "eager"  # the others want sizes that are multiples of 4
    model: PreTrainedModel = getattr(transformers, row.reference or row.architecture)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            # Loud enough that no part can be lost unseen, and not so loud that softmax saturates.
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    return model


def engine_config(
    folder: Path,
    *,
    dtype: str = "float32",
    max_model_len: int = 128,
    block_size: int = 16,
    hf_config: dict[str, Any] | None = None,
) -> EngineConfig:
    """The config of an engine for the model in ``folder``; its config.json unless one is given."""
    if hf_config is None:
        hf_config = json.loads((folder / "config.json").read_text())
    return EngineConfig(
        model=ModelConfig(
            model=str(folder),
            path=folder,
            tokenizer=folder,
            hf_config=hf_config,
            generation_config={},
            architecture=hf_config["architectures"][0],
            dtype=dtype,
            max_model_len=max_model_len,
            vocab_size=hf_config["vocab_size"],
            model_impl=choose_implementation("auto", hf_config["architectures"][0]),
            skip_tokenizer_init=True,
        ),
        load=LoadConfig(use_tqdm=False),
        cache=CacheConfig(block_size=block_size),
    )
