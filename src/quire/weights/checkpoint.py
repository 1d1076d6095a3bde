"""Checkpoint: tensors by the names they have in the files. Knows nothing about models or layers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from quire.errors import ModelLoadError
from quire.weights.checkpoint_files import WeightFiles, choose_weight_files
from quire.weights.pickle_file import PickleFile
from quire.weights.safetensors_file import SafetensorsFile


class Checkpoint(Protocol):
    """Tensors by name; `read` gives only the slice asked for, as a view where it can."""

    num_bytes: int  # on disk, all files

    def names(self) -> frozenset[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor: ...


def refuse_codes(name: str, dtype: torch.dtype) -> None:
    """ModelLoadError for a tensor whose numbers are no weights: at best they stand for some."""
    if dtype.is_floating_point and dtype.itemsize > 1:
        return
    raise ModelLoadError(
        f"{name} is stored as {str(dtype).removeprefix('torch.')}, and nothing in config.json says "
        "which weights these numbers stand for (quantization_config); use a checkpoint in "
        "bfloat16, float16 or float32, or one whose config.json says how it is quantized"
    )


def open_checkpoint(path: Path, load_format: str = "auto") -> Checkpoint:
    """Open the weights in folder `path`; ModelLoadError if there are none or they are damaged."""
    listing = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    chosen = choose_weight_files(listing, load_format)
    if chosen is None:
        others = load_format != "auto" and choose_weight_files(listing) is not None
        hint = "; load_format 'auto' reads the weights that are there" if others else ""
        raise ModelLoadError(
            f"no weights in {path} for load_format {load_format!r}: expected "
            f"{_EXPECTED[load_format]} and found {', '.join(listing) or 'no files'}{hint}"
        )
    if chosen.index is not None:
        return _open_indexed(path, chosen)
    files = [_FILE_TYPES[chosen.kind](path / name) for name in chosen.files]
    return FolderCheckpoint(_owners(files), files)


_EXPECTED = {
    "auto": "*.safetensors, *.bin or *.pt",
    "safetensors": "*.safetensors",
    "pt": "*.bin, *.pt or *.pth",
}
_TensorFile = SafetensorsFile | PickleFile
_FILE_TYPES: dict[str, type[SafetensorsFile] | type[PickleFile]] = {
    "safetensors": SafetensorsFile,
    "pickle": PickleFile,
}


class FolderCheckpoint:
    """One or several files of one kind, joined."""

    def __init__(self, owners: Mapping[str, _TensorFile], files: Sequence[_TensorFile]) -> None:
        self._owners = owners
        self.num_bytes = sum(file.num_bytes for file in files)

    def names(self) -> frozenset[str]:
        return frozenset(self._owners)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file(name).shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._file(name).dtype(name)

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor:
        return self._file(name).read(name, index)

    def _file(self, name: str) -> _TensorFile:
        file = self._owners[name]
        if name not in file.names():
            raise ModelLoadError(
                f"the index says that {name!r} is in {file.path}, which does not hold it; "
                "download the index and the shard again"
            )
        return file


def _owners(files: Sequence[_TensorFile]) -> dict[str, _TensorFile]:
    """Tensor name -> file, of files that no index describes."""
    owners: dict[str, _TensorFile] = {}
    for file in files:
        for name in file.names():
            if name in owners:
                raise ModelLoadError(
                    f"tensor {name!r} is in both {owners[name].path} and {file.path}; "
                    "remove one of the files or add an index"
                )
            owners[name] = file
    return owners


def _open_indexed(path: Path, chosen: WeightFiles) -> FolderCheckpoint:
    assert chosen.index is not None
    index_path = path / chosen.index
    try:
        shard_of = json.loads(index_path.read_text(encoding="utf-8"))["weight_map"]
        shard_names = sorted(set(shard_of.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(
            f"{index_path} is damaged ({type(error).__name__}: {error}); download it again"
        ) from error
    missing = [name for name in shard_names if not (path / name).is_file()]
    if missing:
        raise ModelLoadError(
            f"{index_path} names {len(shard_names)} shards and {len(missing)} of them "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; download the model again"
        )
    files = {name: _FILE_TYPES[chosen.kind](path / name) for name in shard_names}
    return FolderCheckpoint(
        {name: files[shard] for name, shard in shard_of.items()}, list(files.values())
    )
