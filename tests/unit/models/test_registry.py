"""Architectures are found by name; an unknown one is refused with its near names."""

from __future__ import annotations

import json
from pathlib import Path

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


def test_every_family_has_a_parity_row_or_a_golden() -> None:
    """Names that differ in spelling alone share a function."""
    configs = Path(__file__).parents[2].glob("models/goldens/*/config.json")
    tested = {json.loads(config.read_text())["architectures"][0] for config in configs}
    tested |= {row.architecture for row in PARITY_ROWS}
    functions = {ModelRegistry.plan_function(name) for name in tested}
    untested = [
        name
        for name in ModelRegistry.get_supported_archs()
        if ModelRegistry.plan_function(name) not in functions
    ]
    assert untested == []


def test_unknown_architecture_names_itself_and_near_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'Qwen2ForCausalLLM'.*mean Qwen2ForCausalLM"):
        ModelRegistry.plan_function("Qwen2ForCausalLLM")
    with pytest.raises(UnsupportedModelError, match=r"'x' has no implementation .*`quire models`"):
        ModelRegistry.plan_function("x")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen3Model", "Qwen3ForCausalLM"),
        ("GPT2Model", "GPT2LMHeadModel"),
        ("LlamaForSequenceClassification", "LlamaForCausalLM"),
    ],
)
def test_another_class_of_a_family_is_told_the_one_that_generates(name: str, family: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"'{name}' has .*; did you mean {family}\?$"):
        ModelRegistry.plan_function(name)


@pytest.mark.parametrize(
    "name", ["FalconMambaForCausalLM", "Gemma7ForCausalLM", "Qwen9MoeForCausalLM", "BertModel"]
)
def test_another_model_is_no_misspelling(name: str) -> None:
    with pytest.raises(
        UnsupportedModelError, match=f"'{name}' has no implementation in Quire; `quire"
    ):
        ModelRegistry.plan_function(name)


def test_users_can_register_their_own() -> None:
    registry = type(ModelRegistry)({})

    def mine(hf: HFConfig) -> ModelPlan:
        raise AssertionError("nobody plans a model here")

    registry.register_model("MineForCausalLM", mine)
    registry.register_model("LazyForCausalLM", "quire.models.architectures.llama:llama")
    assert registry.plan_function("MineForCausalLM") is mine
    assert registry.plan_function("LazyForCausalLM") is llama
    assert registry.get_supported_archs() == ["LazyForCausalLM", "MineForCausalLM"]
    with pytest.raises(ValueError, match="'module:function'"):
        registry.register_model("Bad", "quire.models")


def test_what_is_no_plan_function_is_refused_with_what_is() -> None:
    registry = type(ModelRegistry)({})

    class MineForCausalLM:
        """As other engines take them."""

    with pytest.raises(ValueError, match=r"MineForCausalLM is a class; Quire takes a plan funct"):
        registry.register_model("Mine", MineForCausalLM)
    with pytest.raises(ValueError, match=r"Mine: 3 cannot be called; .* HFConfig -> ModelPlan"):
        registry.register_model("Mine", 3)
    registry.register_model("Mine", "quire.models.plan:ModelPlan")
    with pytest.raises(ValueError, match=r"quire\.models\.plan:ModelPlan is a class"):
        registry.plan_function("Mine")
    for place in ("quire.models.plan:nothing", "no.such.module:plan"):
        registry.register_model("Mine", place)
        with pytest.raises(ValueError, match=f"'{place}' of Mine cannot be imported: "):
            registry.plan_function("Mine")


def test_a_plan_function_must_return_a_plan() -> None:
    registry = type(ModelRegistry)({})
    registry.register_model("Mine", lambda hf: None)
    with pytest.raises(
        ValueError, match=r"of Mine returned NoneType; it must return a .*ModelPlan"
    ):
        registry.plan("Mine", HFConfig({}, "Mine"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_attention_heads": 0}, "the numbers in the config of LlamaForCausalLM make no model"),
        ({"vocab_size": 0}, r"makes embedding\.weight a tensor of shape \[0, 8\]"),
        ({"intermediate_size": -3}, r"makes layers\.0\.mlp\.gate\.weight a tensor of shape"),
    ],
)
def test_numbers_that_make_no_model_are_refused(changes: dict[str, int], message: str) -> None:
    sizes = ("hidden_size", "intermediate_size", "vocab_size")
    config = {**dict.fromkeys(sizes, 8), "num_attention_heads": 2, "num_hidden_layers": 1}
    with pytest.raises(UnsupportedModelError, match=message):
        ModelRegistry.plan("LlamaForCausalLM", HFConfig(config | changes, "LlamaForCausalLM"))


def test_where_a_function_stands() -> None:
    registry = type(ModelRegistry)({"A": "quire.models.architectures.llama:llama"})
    assert registry.where("A") == "quire.models.architectures.llama:llama"
    registry.plan_function("A")
    assert registry.where("A") == "quire.models.architectures.llama:llama"
