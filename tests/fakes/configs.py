"""Engine configs, and what an engine tells of itself, for tests that load no model."""

from __future__ import annotations

from pathlib import Path

from quire.config import EngineConfig, ModelConfig
from quire.step_output import EngineFacts

MAX_MODEL_LEN = 64
FAKE_FACTS = EngineFacts(
    num_blocks=20,
    block_size=4,
    max_num_seqs=8,
    max_model_len=MAX_MODEL_LEN,
    weight_bytes=0,
    kv_cache_bytes=0,
    attention_backend="fake",
)


def fake_config(
    model: str = "fake", *, folder: Path = Path("/fake"), **fields: object
) -> EngineConfig:
    """A config for the fake core; ``fields`` go to its `ModelConfig`."""
    defaults: dict[str, object] = {
        "model": model,
        "path": folder,
        "tokenizer": folder,
        "hf_config": {"model_type": "llama", "vocab_size": 1000, "rope": {"factor": 2.0}},
        "generation_config": {},
        "architecture": "LlamaForCausalLM",
        "dtype": "float32",
        "max_model_len": MAX_MODEL_LEN,
        "vocab_size": 1000,
        "skip_tokenizer_init": True,
    }
    return EngineConfig(model=ModelConfig(**{**defaults, **fields}))  # type: ignore[arg-type]
