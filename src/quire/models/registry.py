"""Maps architecture names to the functions that make their ModelPlan. Knows no architecture."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from importlib import import_module
from typing import TypeAlias

from quire.errors import UnsupportedModelError
from quire.models.catalog import FAMILIES, Family, families
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.near_names import nearest

PlanFunction: TypeAlias = Callable[[HFConfig], ModelPlan]

# Architecture, as config.json spells it -> module:function. A module is imported when asked for.
_ARCHITECTURES: dict[str, str] = {
    "AquilaForCausalLM": "quire.models.architectures.llama:llama",
    "AquilaModel": "quire.models.architectures.llama:llama",
    "BaiChuanForCausalLM": "quire.models.architectures.baichuan:baichuan_7b",
    "BaichuanForCausalLM": "quire.models.architectures.baichuan:baichuan",
    "BloomForCausalLM": "quire.models.architectures.bloom:bloom",
    "ChatGLMForConditionalGeneration": "quire.models.architectures.chatglm:chatglm",
    "ChatGLMModel": "quire.models.architectures.chatglm:chatglm",
    "Cohere2ForCausalLM": "quire.models.architectures.cohere2:cohere2",
    "CohereForCausalLM": "quire.models.architectures.cohere:cohere",
    "DbrxForCausalLM": "quire.models.architectures.dbrx:dbrx",
    "DeciLMForCausalLM": "quire.models.architectures.decilm:decilm",
    "DeepseekV2ForCausalLM": "quire.models.architectures.deepseek:deepseek_v2",
    "DeepseekV3ForCausalLM": "quire.models.architectures.deepseek:deepseek_v3",
    "FalconForCausalLM": "quire.models.architectures.falcon:falcon",
    "Gemma2ForCausalLM": "quire.models.architectures.gemma2:gemma2",
    "Gemma3ForCausalLM": "quire.models.architectures.gemma3:gemma3",
    "GemmaForCausalLM": "quire.models.architectures.gemma:gemma",
    "Glm4ForCausalLM": "quire.models.architectures.glm:glm4",
    "GlmForCausalLM": "quire.models.architectures.glm:glm",
    "GPT2LMHeadModel": "quire.models.architectures.gpt2:gpt2",
    "GPTBigCodeForCausalLM": "quire.models.architectures.gpt_bigcode:gpt_bigcode",
    "GPTJForCausalLM": "quire.models.architectures.gptj:gptj",
    "GPTNeoXForCausalLM": "quire.models.architectures.gpt_neox:gpt_neox",
    "GptOssForCausalLM": "quire.models.architectures.gpt_oss:gpt_oss",
    "GraniteForCausalLM": "quire.models.architectures.granite:granite",
    "InternLM2ForCausalLM": "quire.models.architectures.internlm2:internlm2",
    "InternLMForCausalLM": "quire.models.architectures.internlm:internlm",
    "JAISLMHeadModel": "quire.models.architectures.jais:jais",
    "LLaMAForCausalLM": "quire.models.architectures.llama:llama",
    "LlamaForCausalLM": "quire.models.architectures.llama:llama",
    "MistralForCausalLM": "quire.models.architectures.mistral:mistral",
    "MixtralForCausalLM": "quire.models.architectures.mixtral:mixtral",
    "MPTForCausalLM": "quire.models.architectures.mpt:mpt",
    "MptForCausalLM": "quire.models.architectures.mpt:mpt",
    "NemotronForCausalLM": "quire.models.architectures.nemotron:nemotron",
    "Olmo2ForCausalLM": "quire.models.architectures.olmo2:olmo2",
    "OLMoForCausalLM": "quire.models.architectures.olmo_original:olmo_original",
    "OlmoForCausalLM": "quire.models.architectures.olmo:olmo",
    "OPTForCausalLM": "quire.models.architectures.opt:opt",
    "OrionForCausalLM": "quire.models.architectures.orion:orion",
    "PersimmonForCausalLM": "quire.models.architectures.persimmon:persimmon",
    "Phi3ForCausalLM": "quire.models.architectures.phi3:phi3",
    "PhiForCausalLM": "quire.models.architectures.phi:phi",
    "PhiMoEForCausalLM": "quire.models.architectures.phimoe:phimoe",
    "PhimoeForCausalLM": "quire.models.architectures.phimoe:phimoe",
    "Qwen2ForCausalLM": "quire.models.architectures.qwen2:qwen2",
    "Qwen2MoeForCausalLM": "quire.models.architectures.qwen2_moe:qwen2_moe",
    "Qwen3ForCausalLM": "quire.models.architectures.qwen3:qwen3",
    "Qwen3MoeForCausalLM": "quire.models.architectures.qwen3_moe:qwen3_moe",
    "QWenLMHeadModel": "quire.models.architectures.qwen:qwen",
    "RWForCausalLM": "quire.models.architectures.falcon:falcon",
    "SmolLM3ForCausalLM": "quire.models.architectures.smollm3:smollm3",
    "StableLMEpochForCausalLM": "quire.models.architectures.stablelm:stablelm",
    "StableLmForCausalLM": "quire.models.architectures.stablelm:stablelm",
    "Starcoder2ForCausalLM": "quire.models.architectures.starcoder2:starcoder2",
    "XverseForCausalLM": "quire.models.architectures.llama:llama",
    "YiForCausalLM": "quire.models.architectures.yi:yi",
}


class _Registry:
    """Architecture names to plan functions."""

    def __init__(self, architectures: dict[str, str]) -> None:
        self._functions: dict[str, PlanFunction | str] = dict(architectures)

    def __contains__(self, architecture: str) -> bool:
        return architecture in self._functions

    def get_supported_archs(self) -> list[str]:
        return sorted(self._functions)

    def register_model(self, architecture: str, function: PlanFunction | str) -> None:
        """Add or replace an architecture; a "module:function" is imported when it is needed.

        The function gets the `HFConfig` of a model and returns its `ModelPlan`.
        """
        if isinstance(function, str) and function.count(":") != 1:
            raise ValueError(
                f"the plan function {function!r} of {architecture} must be a function "
                "or a string 'module:function'"
            )
        if not isinstance(function, str):
            _check_function(architecture, function)
        self._functions[architecture] = function

    def where(self, architecture: str) -> str:
        """The "module:function" of a supported architecture."""
        function = self._functions[architecture]
        if isinstance(function, str):
            return function
        return f"{function.__module__}:{function.__qualname__}"

    def is_ours(self, architecture: str) -> bool:
        """Whether a supported architecture is Quire's own and has not been replaced by a user."""
        return self.where(architecture).startswith(FAMILIES)

    def plan(self, architecture: str, hf: HFConfig) -> ModelPlan:
        """The plan of a model; an UnsupportedModelError names an unknown architecture or key."""
        try:
            plan = self.plan_function(architecture)(hf)
        except ArithmeticError as error:
            raise UnsupportedModelError(
                f"the numbers in the config of {architecture} make no model ({error})"
            ) from error
        if not isinstance(plan, ModelPlan):
            raise ValueError(
                f"the plan function {self.where(architecture)} of {architecture} returned "
                f"{type(plan).__name__}; it must return a quire.models.plan.ModelPlan"
            )
        for name, shape in plan.parameter_shapes().items():
            if min(shape) < 1:
                raise UnsupportedModelError(
                    f"the config of {architecture} makes {name} a tensor of shape {list(shape)}; "
                    "every size must be at least 1"
                )
        return plan

    def plan_function(self, architecture: str) -> PlanFunction:
        if architecture not in self._functions:
            raise UnsupportedModelError(self.about_unknown(architecture))
        function = self._functions[architecture]
        if isinstance(function, str):
            function = _import(architecture, function)
            self._functions[architecture] = function
        return function

    def about_unknown(self, architecture: str) -> str:
        """An error message for an unknown architecture: near names, or how to list all."""
        near = _nearest(architecture, self._functions)
        hint = f"; did you mean {' or '.join(near)}?" if near else "; `quire models` lists those"
        return f"architecture {architecture!r} has no implementation in Quire{hint}"


def _import(architecture: str, place: str) -> PlanFunction:
    module, _, name = place.partition(":")
    try:
        function: PlanFunction = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the plan function {place!r} of {architecture} cannot be imported: {error}"
        ) from error
    _check_function(architecture, function)
    return function


def _check_function(architecture: str, function: object) -> None:
    """ValueError unless it is a plan function; other engines register model classes instead."""
    if isinstance(function, type):
        raise ValueError(
            f"{architecture}: {function.__module__}:{function.__qualname__} is a class; Quire "
            "takes a plan function, HFConfig -> ModelPlan (docs/models.md shows one)"
        )
    if not callable(function):
        raise ValueError(
            f"{architecture}: {function!r} cannot be called; Quire takes a plan function, "
            "HFConfig -> ModelPlan (docs/models.md shows one)"
        )


def _nearest(architecture: str, known: Collection[str]) -> list[str]:
    """Known names that ``architecture`` may misspell, but not other versions of its family."""
    named = {_family(one): one for one in known}
    near = nearest(_family(architecture), named, cutoff=0.85)
    return [named[one] for one in near if _digits(one) == _digits(architecture)]


def _family(architecture: str) -> str:
    """The name without its task suffix, such as ForCausalLM or Model."""
    return re.sub(r"(For[A-Z]\w*|LMHeadModel|Model)$", "", architecture)


def _digits(name: str) -> list[str]:
    return re.findall(r"\d", name)


ModelRegistry = _Registry(_ARCHITECTURES)


def supported_families() -> list[Family]:
    """All supported architectures, a user's own among them, by family."""
    names = ModelRegistry.get_supported_archs()
    return families((name, ModelRegistry.where(name)) for name in names)
