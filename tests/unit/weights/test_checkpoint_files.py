"""Which files of a repository are its weights."""

from __future__ import annotations

import pytest

from quire.weights.checkpoint_files import choose_weight_files

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def test_safetensors_win_over_bin() -> None:
    chosen = choose_weight_files(["pytorch_model.bin", "model.safetensors", "config.json"])
    assert chosen is not None
    assert (chosen.kind, chosen.files, chosen.index) == (
        "safetensors",
        ("model.safetensors",),
        None,
    )


def test_shards_come_with_their_index() -> None:
    chosen = choose_weight_files([*SHARDS, INDEX, "pytorch_model.bin"])
    assert chosen is not None
    assert (chosen.files, chosen.index) == (SHARDS, INDEX)


def test_single_file_wins_over_others_without_an_index() -> None:
    chosen = choose_weight_files(["model.safetensors", "model.fp16.safetensors"])
    assert chosen is not None
    assert chosen.files == ("model.safetensors",)


def test_index_of_another_name_is_found() -> None:
    names = ["gptq-1-of-1.safetensors", "gptq.safetensors.index.json"]
    chosen = choose_weight_files(names)
    assert chosen is not None
    assert chosen.index == "gptq.safetensors.index.json"


@pytest.mark.parametrize(
    "name",
    [
        "consolidated.safetensors",
        "consolidated.00.pth",
        "training_args.bin",
        "optimizer.pt",
        "scheduler.pt",
        "adapter_model.safetensors",
        "adapter_model.bin",
        "rng_state_0.pth",
        "README.md",
        "model.gguf",
    ],
)
def test_other_files_are_no_weights(name: str) -> None:
    assert choose_weight_files([name]) is None


def test_load_format_pt_ignores_safetensors() -> None:
    chosen = choose_weight_files(["model.safetensors", "pytorch_model.bin"], "pt")
    assert chosen is not None
    assert chosen.files == ("pytorch_model.bin",)
    assert choose_weight_files(["pytorch_model.bin"], "safetensors") is None


def test_unknown_load_format_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'gguf'.*auto, safetensors, pt"):
        choose_weight_files(["model.gguf"], "gguf")
