"""A checkpoint saved from the inner class of a model, whose names lack a prefix, is as good as one
of the whole model; one whose names have it here and there is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from quire.errors import ModelLoadError
from quire.models.loading import build_model, check_weights, plan_of
from quire.weights.checkpoint import open_checkpoint
from tests.models.configs import PARITY_ROWS, engine_config, save_random_model
from tests.models.loaded import assert_whole_and_equal
from tests.models.row import ParityRow

_FIRST = {row.architecture: row for row in reversed(PARITY_ROWS)}
_LLAMA = _FIRST["LlamaForCausalLM"]


def _rename(folder: Path, new_name: Callable[[str], str]) -> None:
    file = folder / "model.safetensors"
    tensors = {new_name(name): tensor for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


def _save_without_prefix(row: ParityRow, folder: Path) -> PreTrainedModel:
    """The head, where there is one, lies beside."""
    model = save_random_model(row, folder)
    _rename(folder, lambda name: name.removeprefix(f"{model.base_model_prefix}."))
    return model


def _save_inner_class(row: ParityRow, folder: Path) -> PreTrainedModel:
    """With the outer class's name in the config, as users then put it there."""
    model = save_random_model(row, folder)
    model.base_model.save_pretrained(folder)
    model.config.architectures = [row.architecture]
    model.config.save_pretrained(folder)
    return model


@pytest.mark.parametrize("row", _FIRST.values(), ids=lambda row: row.architecture)
def test_names_without_the_prefix_are_those_of_the_whole_model(
    row: ParityRow, tmp_path: Path
) -> None:
    reference = _save_without_prefix(row, tmp_path)
    config = engine_config(tmp_path)
    check_weights(plan_of(config.model.hf_config, row.architecture), open_checkpoint(tmp_path))
    assert_whole_and_equal(build_model(config), reference)


def test_a_tied_model_as_its_inner_class_saves_it(tmp_path: Path) -> None:
    reference = _save_inner_class(_FIRST["GemmaForCausalLM"], tmp_path)
    assert_whole_and_equal(build_model(engine_config(tmp_path)), reference)


def test_a_missing_head_is_named(tmp_path: Path) -> None:
    _save_inner_class(_LLAMA, tmp_path)
    with pytest.raises(ModelLoadError, match=r"has no tensor 'lm_head\.weight'"):
        build_model(engine_config(tmp_path))


def test_a_prefix_that_some_tensors_lack_is_damage(tmp_path: Path) -> None:
    save_random_model(_LLAMA, tmp_path)
    _rename(tmp_path, lambda name: name.replace("model.layers.1.", "layers.1."))
    with pytest.raises(ModelLoadError, match=r"has no tensor 'model\.layers\.1\."):
        build_model(engine_config(tmp_path))


def test_names_of_another_family_are_missed_under_the_usual_ones(tmp_path: Path) -> None:
    save_random_model(_LLAMA, tmp_path)
    _rename(tmp_path, lambda name: f"transformer.{name.removeprefix('model.')}")
    with pytest.raises(ModelLoadError, match=r"has no tensor 'model\.embed_tokens\.weight'"):
        build_model(engine_config(tmp_path))
