"""Which model to run and how, and what is known of it before its weights are read.

Knows neither implementation (Quire's, transformers'). Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from quire.config import ModelConfig
from quire.kv_layout import KVLayout

Implementation = Literal["quire", "transformers"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A model folder, its config after the user's overrides, and how to run it."""

    path: Path
    hf_config: Mapping[str, Any]  # config.json
    architecture: str
    dtype: str
    impl: Implementation
    trust_remote_code: bool = False

    @classmethod
    def of(cls, model: ModelConfig) -> ModelSource:
        return cls(
            path=model.path,
            hf_config=model.hf_config,
            architecture=model.architecture,
            dtype=model.dtype,
            impl=model.model_impl,
            trust_remote_code=model.trust_remote_code,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthLimit:
    """A hard limit on the context length, whatever the config says."""

    num_tokens: int
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelFacts:
    """What the KV cache and the checks of arguments need to know of a model."""

    kv_layout: KVLayout
    vocab_size: int  # rows of the output head
    num_parameters: int
    weight_bytes: int
    num_learned_positions: int | None  # None: positions are computed
    length_limit: LengthLimit | None = None
