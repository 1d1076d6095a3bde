"""Engine configs for tests that load no model."""

from __future__ import annotations

from pathlib import Path

from quire.config import EngineConfig, ModelConfig


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
        "max_model_len": 64,
        "vocab_size": 1000,
        "skip_tokenizer_init": True,
    }
    return EngineConfig(model=ModelConfig(**{**defaults, **fields}))  # type: ignore[arg-type]
