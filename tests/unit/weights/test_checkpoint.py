"""Checkpoints of every storage read the same tensors; damaged ones are named."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from quire.errors import ModelLoadError
from quire.weights.checkpoint import Checkpoint, open_checkpoint
from tests.fakes.checkpoints import MemoryCheckpoint

Tensors = dict[str, Tensor]


def some_tensors() -> Tensors:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(6, 4, generator=generator),
        "a.bias": torch.randn(6, generator=generator).to(torch.bfloat16),
        "half": torch.randn(3, 5, 2, generator=generator).to(torch.float16),
        "flags": torch.tensor([True, False, True]),
        "ids": torch.arange(7),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "eight": torch.randn(4, 4, generator=generator).to(torch.float8_e4m3fn),
        "complex": torch.view_as_complex(torch.randn(3, 2, generator=generator)),
    }


def as_safetensors(tensors: Tensors, folder: Path) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def as_safetensors_shards(tensors: Tensors, folder: Path) -> None:
    shard_of = {}
    for place, name in enumerate(tensors):
        shard_of[name] = f"model-0000{place % 2 + 1}-of-00002.safetensors"
    for shard in set(shard_of.values()):
        save_file({n: t for n, t in tensors.items() if shard_of[n] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def as_safetensors_without_index(tensors: Tensors, folder: Path) -> None:
    names = sorted(tensors)
    save_file({name: tensors[name] for name in names[:3]}, folder / "part-1.safetensors")
    save_file({name: tensors[name] for name in names[3:]}, folder / "part-2.safetensors")


def as_pickle(tensors: Tensors, folder: Path) -> None:
    torch.save(tensors | {"step": 3}, folder / "pytorch_model.bin")


def as_old_pickle(tensors: Tensors, folder: Path) -> None:
    state = {"state_dict": tensors}
    torch.save(state, folder / "model.pt", _use_new_zipfile_serialization=False)


def as_pickle_shards(tensors: Tensors, folder: Path) -> None:
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[:4]}
    shards["pytorch_model-00002-of-00002.bin"] = names[4:]
    for shard, members in shards.items():
        torch.save({name: tensors[name] for name in members}, folder / shard)
    shard_of = {name: shard for shard, members in shards.items() for name in members}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": shard_of}))


STORAGES = [
    as_safetensors,
    as_safetensors_shards,
    as_safetensors_without_index,
    as_pickle,
    as_old_pickle,
    as_pickle_shards,
]


@pytest.mark.parametrize("store", STORAGES)
def test_every_storage_gives_the_same_tensors(
    store: Callable[[Tensors, Path], None], tmp_path: Path
) -> None:
    tensors = some_tensors()
    if store is as_old_pickle:
        del tensors["eight"]  # younger than that format
    store(tensors, tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"not for us")
    check_reads(open_checkpoint(tmp_path), tensors)


def test_tensors_in_memory_are_a_checkpoint() -> None:
    tensors = some_tensors()
    check_reads(MemoryCheckpoint(tensors), tensors)


def check_reads(checkpoint: Checkpoint, tensors: Tensors) -> None:
    assert checkpoint.names() == frozenset(tensors)
    assert checkpoint.num_bytes >= sum(tensor.nbytes for tensor in tensors.values())
    for name, tensor in tensors.items():
        assert checkpoint.shape(name) == tuple(tensor.shape)
        assert checkpoint.dtype(name) == tensor.dtype
        assert same_bits(checkpoint.read(name), tensor)
    index = (slice(1, 3), slice(2, 4))
    assert same_bits(checkpoint.read("a.weight", index), tensors["a.weight"][1:3, 2:4])
    assert same_bits(checkpoint.read("half", (slice(2, 3),)), tensors["half"][2:3])


def same_bits(one: Tensor, other: Tensor) -> bool:
    assert one.shape == other.shape and one.dtype == other.dtype
    as_bytes = [t.contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return torch.equal(*as_bytes)


def test_unaligned_safetensors_are_read(tmp_path: Path) -> None:
    """The format lets a float follow an odd number of bytes."""
    values = torch.tensor([1.5, -2.0])
    header = json.dumps(
        {
            "odd": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
            "x": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
        }
    ).encode()
    body = b"\x01\x02\x03" + values.numpy().tobytes()
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + body)
    assert open_checkpoint(tmp_path).read("x").tolist() == [1.5, -2.0]


def test_folder_without_weights_lists_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    with pytest.raises(ModelLoadError, match=r"found config.json, training_args.bin"):
        open_checkpoint(tmp_path)


def test_folder_with_weights_that_are_not_read_says_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "tiny.gguf").touch()
    with pytest.raises(ModelLoadError, match=r"found tiny\.gguf; tiny\.gguf is in the format of"):
        open_checkpoint(tmp_path)


def test_truncated_safetensors_names_file_and_sizes(tmp_path: Path) -> None:
    as_safetensors(some_tensors(), tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    expected = rf"{file} is truncated: .* announces {len(whole):,} bytes .* has {len(whole) - 10:,}"
    with pytest.raises(ModelLoadError, match=f"{expected}; download it again"):
        open_checkpoint(tmp_path)


def test_safetensors_with_more_behind_the_last_tensor_are_damaged(tmp_path: Path) -> None:
    as_safetensors(some_tensors(), tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole + b"\0")
    with pytest.raises(ModelLoadError, match=rf"is damaged: .* {len(whole):,} bytes .*download it"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("offsets", "begins", "ends"),
    [
        ([[0, 8], [4, 8]], 4, 8),  # overlap
        ([[0, 8], [0, 4]], 0, 4),
        ([[0, 8], [12, 16]], 12, 8),  # a hole
        ([[8, 16], [4, 8]], 4, 0),
    ],
)
def test_safetensors_whose_tensors_overlap_or_leave_holes_are_damaged(
    offsets: list[list[int]], begins: int, ends: int, tmp_path: Path
) -> None:
    shapes = zip("xy", ([2], [1]), offsets, strict=True)
    header = json.dumps(
        {name: {"dtype": "F32", "shape": s, "data_offsets": at} for name, s, at in shapes}
    ).encode()
    file, data = tmp_path / "model.safetensors", 8 + len(header)
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    match = rf"damaged header: '[xy]' begins at byte {data + begins} .* ends at byte {data + ends};"
    with pytest.raises(ModelLoadError, match=match):
        open_checkpoint(tmp_path)


def test_safetensors_may_hold_tensors_without_values(tmp_path: Path) -> None:
    stored = {"a": torch.ones(2), "b": torch.ones(0, 3), "c": torch.ones(1), "d": torch.ones(0)}
    as_safetensors(stored, tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert {name: checkpoint.read(name).shape for name in stored} == {
        name: tensor.shape for name, tensor in stored.items()
    }


@pytest.mark.parametrize("kept", [0, 5, 40])
def test_safetensors_cut_in_the_header_are_named(kept: int, tmp_path: Path) -> None:
    as_safetensors(some_tensors(), tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelLoadError, match=r"model.safetensors is truncated .*download it again"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"no json",
        b"[]",
        b'{"x": {"dtype": "F32"}}',
        b'{"x": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"x": {"dtype": "F32", "shape": ["1"], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [-1, -1], "data_offsets": [0, 4]}}',
        b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}',
        b"[" * 100_000,
    ],
)
def test_damaged_safetensors_header_is_named(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0\0\0")
    with pytest.raises(ModelLoadError, match=r"model.safetensors has a damaged header"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("store", [as_pickle, as_old_pickle])
@pytest.mark.parametrize("kept", [0, 30, 0.5, 0.99])
def test_truncated_pickle_is_named(
    store: Callable[[Tensors, Path], None], kept: float, tmp_path: Path
) -> None:
    store(some_tensors(), tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else int(kept)])
    with pytest.raises(ModelLoadError, match=rf"{file.name} is truncated.*download it again"):
        open_checkpoint(tmp_path).names()


class Exploit:
    """Its unpickling would run code, which leaves a file behind."""

    def __init__(self, function: Callable[..., object], argument: object) -> None:
        self.call = function, (argument,)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object]]:
        return self.call


def pickled(state: object, file: Path) -> None:
    """As Python writes it, without torch."""
    file.write_bytes(pickle.dumps(state))


@pytest.mark.parametrize(
    "save", [torch.save, partial(torch.save, _use_new_zipfile_serialization=False), pickled]
)
@pytest.mark.parametrize("function", [Path.touch, os.system], ids=["unknown", "blocked"])
def test_pickle_with_code_is_refused_and_not_run(
    save: Callable[..., None], function: Callable[..., object], tmp_path: Path
) -> None:
    proof = tmp_path / "proof"
    argument = proof if function is Path.touch else f"touch {proof}"
    state = {"a": torch.zeros(1), "b": Exploit(function, argument)}
    save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match="would run code, which Quire never does") as caught:
        open_checkpoint(tmp_path).names()
    assert "download" not in str(caught.value) and "weights_only" not in str(caught.value)
    assert not proof.exists()


def test_damage_is_told_without_advice_to_run_code(tmp_path: Path) -> None:
    as_old_pickle(some_tensors(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes().replace(b"\x80\x02}", b"\x80\x02\xff"))
    with pytest.raises(ModelLoadError, match=r"\(Unsupported operand 255\); download it") as caught:
        open_checkpoint(tmp_path).names()
    assert "weights_only" not in str(caught.value)


def test_format_that_was_asked_for_is_the_one_that_is_missing(tmp_path: Path) -> None:
    as_pickle(some_tensors(), tmp_path)
    with pytest.raises(ModelLoadError) as caught:
        open_checkpoint(tmp_path, "safetensors")
    assert str(caught.value) == (
        f"no weights in {tmp_path} for load_format 'safetensors': expected *.safetensors and found "
        "pytorch_model.bin; load_format 'auto' reads the weights that are there"
    )


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": 1}, r"holds no tensors; its keys are \['a'\]"),
        ([torch.zeros(1)], "holds a list, not a dictionary of tensors"),
    ],
)
def test_pickle_without_named_tensors_is_refused(
    state: object, message: str, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=rf"pytorch_model.bin {message}"):
        open_checkpoint(tmp_path).names()


def test_pickle_of_other_bytes_is_named(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02some bytes that are no pickle")
    with pytest.raises(ModelLoadError, match=r"pytorch_model.bin is truncated.*download it again"):
        open_checkpoint(tmp_path).names()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_git_lfs_pointer_says_how_to_get_the_file(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelLoadError, match="git lfs pull"):
        open_checkpoint(tmp_path).names()


def test_missing_shard_is_named(tmp_path: Path) -> None:
    as_safetensors_shards(some_tensors(), tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        ModelLoadError, match=r"2 shards and 1 of them is missing: model-00002-of-00002"
    ):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("store", [as_safetensors_shards, as_pickle_shards])
def test_index_says_which_files_and_the_files_say_what_they_hold(
    store: Callable[[Tensors, Path], None], tmp_path: Path
) -> None:
    tensors = some_tensors()
    store(tensors, tmp_path)
    (path,) = tmp_path.glob("*.index.json")
    index = json.loads(path.read_text())
    first, second = sorted(set(index["weight_map"].values()))
    index["weight_map"] = dict.fromkeys(list(tensors)[1:], first) | {"not there": second}
    path.write_text(json.dumps(index))
    check_reads(open_checkpoint(tmp_path), tensors)


def test_index_decides_between_two_files_that_hold_a_tensor(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file(
        {"x": torch.ones(1), "y": torch.ones(1)}, tmp_path / "model-00002-of-00002.safetensors"
    )
    shard_of = {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    assert open_checkpoint(tmp_path).read("x").item() == 0


@pytest.mark.parametrize("has_others", [False, True])
def test_single_file_is_read_where_its_index_is_of_shards_that_are_gone(
    tmp_path: Path, has_others: bool
) -> None:
    tensors = some_tensors()
    as_safetensors_shards(tensors, tmp_path)
    for shard in tmp_path.glob("model-*"):
        shard.rename(tmp_path / shard.name.replace("of-00002", "of-00003"))
    if not has_others:
        for shard in tmp_path.glob("model-*"):
            shard.unlink()
    as_safetensors(tensors, tmp_path)
    check_reads(open_checkpoint(tmp_path), tensors)


def test_shards_that_their_numbers_imply_are_missed_without_an_index(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "model-00001-of-000003.safetensors")
    save_file({"y": torch.zeros(1)}, tmp_path / "model-00003-of-000003.safetensors")
    with pytest.raises(
        ModelLoadError,
        match=r"imply 3 shards and 1 of them is missing: model-00002-of-000003\.safetensors; down",
    ):
        open_checkpoint(tmp_path)


def test_damaged_index_is_named(tmp_path: Path) -> None:
    as_safetensors_shards(some_tensors(), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map"')
    with pytest.raises(ModelLoadError, match=r"index.json is damaged"):
        open_checkpoint(tmp_path)


def test_same_tensor_in_two_files_is_an_error(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / "one.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "two.safetensors")
    with pytest.raises(ModelLoadError, match=r"'x' is in both .*one.*two"):
        open_checkpoint(tmp_path)
