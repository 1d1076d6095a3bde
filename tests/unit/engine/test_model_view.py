"""What programs read of a running engine's model."""

from __future__ import annotations

import pytest

from quire.engine.model_view import ModelConfigView
from tests.fakes.configs import fake_config


def view(**hf_config: object) -> ModelConfigView:
    return ModelConfigView(fake_config(hf_config=hf_config).model)


def test_a_text_model_describes_itself() -> None:
    seen = view(model_type="llama", hidden_size=64)
    assert seen.hf_text_config is seen.hf_config
    assert seen.get_hidden_size() == 64
    assert seen.architectures == ["LlamaForCausalLM"]
    assert seen.quantization is None and not seen.is_multimodal_model


def test_hidden_size_is_found_under_the_familys_own_name() -> None:
    assert view(model_type="gpt2", n_embd=24).get_hidden_size() == 24


def test_hidden_size_is_that_of_the_text_part() -> None:
    seen = view(model_type="gemma3", text_config={"hidden_size": 40})
    assert seen.hf_text_config is not seen.hf_config
    assert seen.get_hidden_size() == 40


def test_a_foreign_model_may_have_none() -> None:
    seen = view(model_type="never-heard-of", width=8)
    assert seen.hf_text_config.width == 8
    with pytest.raises(AttributeError, match="hidden_size"):
        seen.get_hidden_size()
