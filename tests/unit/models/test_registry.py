"""Architectures are found by name; an unknown one is refused with its near names."""

from __future__ import annotations

import pytest

from quire.errors import UnsupportedModelError
from quire.models.architectures.llama import llama
from quire.models.hf_config import HFConfig
from quire.models.plan import ModelPlan
from quire.models.registry import ModelRegistry
from tests.models.configs import PARITY_ROWS


def test_both_spellings_of_llama() -> None:
    assert ModelRegistry.plan_function("LlamaForCausalLM") is llama
    assert ModelRegistry.plan_function("LLaMAForCausalLM") is llama


def test_every_supported_architecture_has_a_parity_row() -> None:
    tested = {row.architecture for row in PARITY_ROWS} | {"LLaMAForCausalLM"}
    assert tested == set(ModelRegistry.get_supported_archs())


def test_unknown_architecture_names_itself_and_near_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'Qwen2ForCausalLLM'.*mean Qwen2ForCausalLM"):
        ModelRegistry.plan_function("Qwen2ForCausalLLM")
    with pytest.raises(UnsupportedModelError, match="'x' has no implementation .*`quire models`"):
        ModelRegistry.plan_function("x")


@pytest.mark.parametrize(
    "name", ["FalconMambaForCausalLM", "Gemma2ForCausalLM", "Qwen2MoeForCausalLM", "GPTNeoXModel"]
)
def test_another_model_is_no_misspelling(name: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{name}' has no implementation in Quire; `quire"):
        ModelRegistry.plan_function(name)


def test_users_can_register_their_own() -> None:
    registry = type(ModelRegistry)({})

    def mine(hf: HFConfig) -> ModelPlan:
        raise NotImplementedError

    registry.register_model("MineForCausalLM", mine)
    registry.register_model("LazyForCausalLM", "quire.models.architectures.llama:llama")
    assert registry.plan_function("MineForCausalLM") is mine
    assert registry.plan_function("LazyForCausalLM") is llama
    assert registry.get_supported_archs() == ["LazyForCausalLM", "MineForCausalLM"]
    with pytest.raises(ValueError, match="'module:function'"):
        registry.register_model("Bad", "quire.models")
