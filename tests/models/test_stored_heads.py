"""A head that the checkpoint stores though its config ties it: where it is another matrix than the
embedding it counts, as in transformers; where it is the same it is kept once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedConfig, PreTrainedModel

from quire.errors import ModelLoadError
from quire.models.loading import build_model, check_weights, plan_of
from quire.weights.checkpoint import open_checkpoint
from tests.models.configs import PARITY_ROWS, engine_config, save_random_model
from tests.models.loaded import assert_whole_and_equal
from tests.models.row import ParityRow

_NEVER_TIED = {"DbrxForCausalLM"}  # refused by its config class
_FIRST = {row.architecture: row for row in reversed(PARITY_ROWS)}
_ROWS = [row for name, row in _FIRST.items() if name not in _NEVER_TIED]


def _tied(row: ParityRow, tied: bool) -> ParityRow:
    def make_config() -> PreTrainedConfig:
        config = row.make_config()
        config.tie_word_embeddings = tied
        return config

    return replace(row, make_config=make_config)


def _save(row: ParityRow, folder: Path, *, apart: bool) -> tuple[PreTrainedModel, str]:
    """A tied model with a head in its file: the embedding's, or a matrix apart. And its name."""
    file = folder / "model.safetensors"
    save_random_model(_tied(row, False), folder)
    names = load_file(file).keys()
    model = save_random_model(_tied(row, True), folder)
    tensors = load_file(file)
    (name,) = names - tensors.keys()
    head = model.get_input_embeddings().weight.detach().clone()
    if apart:
        head[-1].neg_()  # one row, the last that is compared
    save_file({**tensors, name: head}, file, metadata={"format": "pt"})
    return type(model).from_pretrained(folder).eval(), name


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.architecture)
def test_a_head_that_differs_is_used_and_one_warning_says_so(
    row: ParityRow, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference, name = _save(row, tmp_path, apart=True)
    assert not torch.equal(
        reference.get_output_embeddings().weight, reference.get_input_embeddings().weight
    )
    loaded = build_model(engine_config(tmp_path))
    (record,) = [one for one in caplog.records if one.name.startswith("quire")]
    assert record.levelname == "WARNING"
    assert f"the checkpoint holds {name} with other values" in record.getMessage()
    assert_whole_and_equal(loaded, reference)


def test_a_head_that_is_the_embedding_is_kept_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    reference, name = _save(_FIRST["LlamaForCausalLM"], tmp_path, apart=False)
    loaded = build_model(engine_config(tmp_path))
    assert [one for one in caplog.records if one.name.startswith("quire")] == []
    tensors = load_file(tmp_path / "model.safetensors")
    others = [tensor.nbytes for other, tensor in tensors.items() if other != name]
    assert loaded.report.bytes_read == sum(others)
    assert_whole_and_equal(loaded, reference)


@pytest.mark.parametrize("row", _ROWS, ids=lambda row: row.architecture)
def test_a_head_that_is_stored_alone_is_the_embedding_too(row: ParityRow, tmp_path: Path) -> None:
    reference, name = _save(row, tmp_path, apart=False)
    file, embedding = tmp_path / "model.safetensors", reference.get_input_embeddings().weight
    tensors = load_file(file)
    (same,) = [
        other
        for other, tensor in tensors.items()
        if other != name and tensor.shape == embedding.shape and torch.equal(tensor, embedding)
    ]
    del tensors[same]
    save_file(tensors, file, metadata={"format": "pt"})
    config = engine_config(tmp_path)
    check_weights(plan_of(config.model.hf_config, row.architecture), open_checkpoint(tmp_path))
    assert_whole_and_equal(build_model(config), type(reference).from_pretrained(tmp_path).eval())


def test_a_head_that_is_stored_alone_is_no_embedding_of_an_untied_model(tmp_path: Path) -> None:
    save_random_model(_tied(_FIRST["LlamaForCausalLM"], False), tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.embed_tokens.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"has no tensor 'model\.embed_tokens\.weight'"):
        build_model(engine_config(tmp_path))
