"""The public names of Quire, imported on first use: `import quire` itself imports nothing heavy."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Read once, when torch loads its OpenMP runtime. Threads that wait for others must not spin for
# long: on a machine with other load a step would take ten times as long (RESULTS.md).
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

__version__ = "0.1.0"
__version_tuple__ = (0, 1, 0)

_MODULE_OF = {
    "LLM": "quire.llm",
    "LLMEngine": "quire.engine.llm_engine",
    "AsyncLLMEngine": "quire.engine.async_engine",
    "EngineArgs": "quire.args",
    "AsyncEngineArgs": "quire.args",
    "SamplingParams": "quire.sampling_params",
    "BeamSearchParams": "quire.sampling_params",
    "LoRARequest": "quire.lora.request",
    "RequestOutput": "quire.outputs",
    "CompletionOutput": "quire.outputs",
    "PromptType": "quire.prompts",
    "TextPrompt": "quire.prompts",
    "TokensPrompt": "quire.prompts",
    "ModelRegistry": "quire.models.registry",
}

__all__ = [
    "LLM",
    "AsyncEngineArgs",
    "AsyncLLMEngine",
    "BeamSearchParams",
    "CompletionOutput",
    "EngineArgs",
    "LLMEngine",
    "LoRARequest",
    "ModelRegistry",
    "PromptType",
    "RequestOutput",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
    "__version__",
    "__version_tuple__",
]

if TYPE_CHECKING:
    from quire.args import AsyncEngineArgs, EngineArgs
    from quire.engine.async_engine import AsyncLLMEngine
    from quire.engine.llm_engine import LLMEngine
    from quire.llm import LLM
    from quire.lora.request import LoRARequest
    from quire.models.registry import ModelRegistry
    from quire.outputs import CompletionOutput, RequestOutput
    from quire.prompts import PromptType, TextPrompt, TokensPrompt
    from quire.sampling_params import BeamSearchParams, SamplingParams


def __getattr__(name: str) -> Any:  # any public object, whatever its type
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'quire' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
