"""Checkpoint: tensors by the names they have in the files. Knows nothing about models or layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from quire.errors import ModelLoadError
from quire.weights.checkpoint_files import (
    WeightFiles,
    choose_weight_files,
    what_is_not_read,
)
from quire.weights.pickle_file import PickleFile
from quire.weights.safetensors_file import SafetensorsFile
from quire.weights.shards import files_of, missing_of, read_index


class Checkpoint(Protocol):
    """Tensors by name; `read` gives only the slice asked for, as a view where it can."""

    num_bytes: int  # on disk, all files

    def names(self) -> frozenset[str]: ...

    def shape(self, name: str) -> tuple[int, ...]: ...

    def dtype(self, name: str) -> torch.dtype: ...

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor: ...


def refuse_codes(name: str, dtype: torch.dtype) -> None:
    """ModelLoadError for a tensor in a quantized dtype (integers or 8-bit floats)."""
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
        has_others = load_format != "auto" and choose_weight_files(listing) is not None
        hint = what_is_not_read(listing)
        if has_others:
            hint = "load_format 'auto' reads the weights that are there"
        raise ModelLoadError(
            f"no weights in {path} for load_format {load_format!r}: expected "
            f"{_EXPECTED[load_format]} and found {', '.join(listing) or 'no files'}"
            f"{f'; {hint}' if hint else ''}"
        )
    names = files_of(path, chosen)
    _refuse_missing(path, chosen, names)
    files = {name: _FILE_TYPES[chosen.kind](path / name) for name in names}
    shard_of = {} if chosen.index is None else read_index(path / chosen.index)
    return FolderCheckpoint(_owners(files, shard_of), list(files.values()))


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
        return self._owners[name].shape(name)

    def dtype(self, name: str) -> torch.dtype:
        return self._owners[name].dtype(name)

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor:
        return self._owners[name].read(name, index)


def _refuse_missing(path: Path, chosen: WeightFiles, names: Sequence[str]) -> None:
    missing = missing_of(path, names)
    if not missing:
        return
    source = f"{path / chosen.index} names" if chosen.index else f"the names in {path} imply"
    raise ModelLoadError(
        f"{source} {len(names)} shards and {len(missing)} of them "
        f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(missing[:5])}"
        f"{', ...' if len(missing) > 5 else ''}; download the model again"
    )


def _owners(
    files: Mapping[str, _TensorFile], shard_of: Mapping[str, str]
) -> dict[str, _TensorFile]:
    """Tensor name -> file that holds it; the index decides if several files do."""
    held = {shard: file.names() for shard, file in files.items()}
    owners = {name: files[shard] for name, shard in shard_of.items() if name in held.get(shard, ())}
    indexed = frozenset(owners)
    for shard, file in files.items():
        for name in held[shard] - indexed:
            if name in owners:
                raise ModelLoadError(
                    f"tensor {name!r} is in both {owners[name].path} and {file.path}; "
                    "remove one of the files or add an index"
                )
            owners[name] = file
    return owners
