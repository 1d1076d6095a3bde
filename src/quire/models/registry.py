"""Which function makes a ModelPlan of which architecture name. Knows nothing about any of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from importlib import import_module
from typing import TypeAlias

from quire.errors import UnsupportedModelError
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.near_names import nearest

PlanFunction: TypeAlias = Callable[[HFConfig], ModelPlan]

# Architecture, as config.json spells it -> module:function. A module is imported when asked for.
_ARCHITECTURES: dict[str, str] = {
    "GemmaForCausalLM": "quire.models.architectures.gemma:gemma",
    "GPT2LMHeadModel": "quire.models.architectures.gpt2:gpt2",
    "LLaMAForCausalLM": "quire.models.architectures.llama:llama",
    "LlamaForCausalLM": "quire.models.architectures.llama:llama",
    "MistralForCausalLM": "quire.models.architectures.mistral:mistral",
    "MixtralForCausalLM": "quire.models.architectures.mixtral:mixtral",
    "Qwen2ForCausalLM": "quire.models.architectures.qwen2:qwen2",
    "Qwen3ForCausalLM": "quire.models.architectures.qwen3:qwen3",
    "Qwen3MoeForCausalLM": "quire.models.architectures.qwen3_moe:qwen3_moe",
}


class _Registry:
    """Architecture names to plan functions."""

    def __init__(self, architectures: dict[str, str]) -> None:
        self._functions: dict[str, PlanFunction | str] = dict(architectures)

    def get_supported_archs(self) -> list[str]:
        return sorted(self._functions)

    def register_model(self, architecture: str, function: PlanFunction | str) -> None:
        """Add or replace an architecture; a "module:function" is imported when it is needed."""
        if isinstance(function, str) and function.count(":") != 1:
            raise ValueError(
                f"the plan function {function!r} of {architecture} must be a function "
                "or a string 'module:function'"
            )
        self._functions[architecture] = function

    def plan_function(self, architecture: str) -> PlanFunction:
        if architecture not in self._functions:
            near = _nearest(architecture, self._functions)
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            raise UnsupportedModelError(
                f"architecture {architecture!r} is not supported; {hint}"
                f"supported: {', '.join(self.get_supported_archs())}"
            )
        function = self._functions[architecture]
        if isinstance(function, str):
            module, _, name = function.partition(":")
            function = getattr(import_module(module), name)
            self._functions[architecture] = function
        return function


def _nearest(architecture: str, known: Collection[str]) -> list[str]:
    """Misspellings only: another family, or another version of one, is another model."""
    named = {_family(one): one for one in known}
    near = nearest(_family(architecture), named, cutoff=0.85)
    return [named[one] for one in near if _digits(one) == _digits(architecture)]


def _family(architecture: str) -> str:
    """Without the ending that nearly all names share."""
    return architecture.partition("For")[0]


def _digits(name: str) -> list[str]:
    return re.findall(r"\d", name)


ModelRegistry = _Registry(_ARCHITECTURES)
