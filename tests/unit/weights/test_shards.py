"""Which files a checkpoint in shards consists of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from quire.weights.checkpoint_files import choose_weight_files
from quire.weights.shards import files_of


@pytest.mark.parametrize(
    ("there", "implied"),
    [
        (
            ["m-00001-of-000003.safetensors"],
            [f"m-0000{i}-of-000003.safetensors" for i in (1, 2, 3)],
        ),
        (["m-00000-of-00002.bin"], ["m-00000-of-00002.bin", "m-00001-of-00002.bin"]),
        (["m-9-of-10.bin", "m-10-of-10.bin"], sorted(f"m-{i}-of-10.bin" for i in range(1, 11))),
        (["m2-1-of-1.bin"], ["m2-1-of-1.bin"]),
        (["a.bin", "b.bin"], ["a.bin", "b.bin"]),
    ],
)
def test_numbers_in_names_imply_the_other_shards(
    tmp_path: Path, there: list[str], implied: list[str]
) -> None:
    chosen = choose_weight_files(there)
    assert chosen is not None
    assert files_of(tmp_path, chosen) == implied


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("listing", "read"),
    [
        (["a.safetensors", "w/b.safetensors"], ["a.safetensors", "w/b.safetensors"]),
        (["a.safetensors", "model.safetensors"], ["a.safetensors", "w/b.safetensors"]),
        (["c.safetensors", "model.safetensors"], ["model.safetensors"]),
    ],
)
def test_index_says_the_shards_before_they_have_come(
    tmp_path: Path, listing: list[str], read: list[str], encoding: str
) -> None:
    index = "model.safetensors.index.json"
    shard_of = {"x": "a.safetensors", "y": "w/b.safetensors"}
    (tmp_path / index).write_text(json.dumps({"weight_map": shard_of}), encoding)
    chosen = choose_weight_files([index, *listing])
    assert chosen is not None
    assert files_of(tmp_path, chosen, listing) == read
    for name in listing:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert files_of(tmp_path, chosen) == read
