"""One pickled checkpoint file (.bin, .pt), read with torch's restricted unpickler: tensors and
plain containers only, never code. Knows nothing about other files of the checkpoint."""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import zipfile
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from quire.errors import ModelLoadError
from quire.weights.lfs_pointer import refuse_lfs_pointer

_ZIP_START = b"PK\x03\x04"
_NAMES_CODE = frozenset({"GLOBAL", "STACK_GLOBAL", "INST"})  # opcodes
# How the unpickler reports something that is neither a tensor nor a plain container.
_REFUSALS = (
    *("nsupported global", "nsupported GLOBAL", "nsupported class", "Can only create new object"),
    *("Trying to call reduce for", "Can only build Tensor"),
)
_REASON = re.compile(r"WeightsUnpickler error:\s*([^\n]+)")  # after torch's lengthy advice
# What the unpickler raises on bytes that are not a checkpoint, depending on where they stop.
_DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class PickleFile:
    """Loaded on first use: memory-mapped in the zip layout, read whole in the older one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = path.stat().st_size

    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        return self._tensors[name].dtype

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor:
        """A view of the loaded or mapped tensor: copy it before writing to it."""
        tensor = self._tensors[name].detach()
        return tensor if index is None else tensor[index]

    @cached_property
    def _tensors(self) -> dict[str, Tensor]:
        is_zip = _check_start(self.path, self.num_bytes)
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True, mmap=is_zip)
        except pickle.UnpicklingError as error:
            raise _unpickling_error(self.path, error) from error
        except _DAMAGE as error:
            raise ModelLoadError(
                f"{self.path} is truncated or damaged ({self.num_bytes:,} bytes, "
                f"{type(error).__name__}: {_first_line(error)}); download it again"
            ) from error
        return _tensors_of(state, self.path)


def _check_start(path: Path, num_bytes: int) -> bool:
    """Whether the file is a zip archive; ModelLoadError if it cannot be a checkpoint."""
    if zipfile.is_zipfile(path):
        return True
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        start = file.read(8)
        file.seek(0)
        if _begins_with_code(file):
            raise _holds_code(path)
    if not start or start.startswith(_ZIP_START):
        raise ModelLoadError(
            f"{path} is truncated: the end of the archive is missing after {num_bytes:,} bytes; "
            "download it again"
        )
    return False


def _begins_with_code(file: IO[bytes]) -> bool:
    """Whether the first pickle names a Python global; in the older layout it is a plain number."""
    try:
        return any(opcode.name in _NAMES_CODE for opcode, _, _ in pickletools.genops(file))
    except Exception:  # bytes that are no pickle fail in many ways; loading says what is wrong
        return False


def _unpickling_error(path: Path, error: pickle.UnpicklingError) -> ModelLoadError:
    if any(refusal in str(error) for refusal in _REFUSALS):
        return _holds_code(path)
    reason = _REASON.search(str(error))
    return ModelLoadError(
        f"{path} is truncated, damaged or no checkpoint "
        f"({reason[1] if reason else _first_line(error)}); download it again"
    )


def _holds_code(path: Path) -> ModelLoadError:
    return ModelLoadError(
        f"{path} holds Python objects besides tensors, and loading those would run code, "
        "which Quire never does; use a copy of the model in safetensors"
    )


def _tensors_of(state: Any, path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, which some trainers put under "state_dict"."""
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ModelLoadError(
            f"{path} holds a {type(state).__name__}, not a dictionary of tensors by name"
        )
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ModelLoadError(f"{path} holds no tensors; its keys are {list(state)[:10]}")
    return tensors


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
