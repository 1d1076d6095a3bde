"""One safetensors file, memory-mapped. Knows nothing about other files of the checkpoint.

Format: 8 bytes little-endian length of the header, the header in JSON (per tensor its dtype, shape
and byte range after the header), then the bytes.
"""

from __future__ import annotations

import json
import math
import mmap
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from quire.errors import ModelLoadError
from quire.weights.lfs_pointer import refuse_lfs_pointer

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "C64": torch.complex64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorEntry:
    """Where a tensor lies."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int  # bytes from the start of the file
    stop: int

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)


class SafetensorsFile:
    """Reads the header at once and tensors on request, only the pages that a slice touches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_bytes = path.stat().st_size
        self.entries = _read_header(path, self.num_bytes)

    def names(self) -> frozenset[str]:
        return frozenset(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self.entries[name].dtype

    def read(self, name: str, index: tuple[slice, ...] | None = None) -> Tensor:
        """A view of the mapped file: copy it before writing to it or closing the checkpoint."""
        entry = self.entries[name]
        if entry.num_values == 0:
            return torch.empty(entry.shape, dtype=entry.dtype)
        flat = torch.frombuffer(
            self._mapped, dtype=entry.dtype, count=entry.num_values, offset=entry.start
        )
        whole = flat.view(entry.shape)
        return whole if index is None else whole[index]

    @cached_property
    def _mapped(self) -> mmap.mmap:
        # Copy on write: torch refuses a read-only buffer with a warning, and nobody writes.
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _read_header(path: Path, num_bytes: int) -> dict[str, TensorEntry]:
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(_MAX_HEADER_BYTES, num_bytes - 8):
            raise ModelLoadError(
                f"{path} is truncated or not a safetensors file: it has {num_bytes:,} bytes and "
                f"its header alone would end at byte {8 + length:,}; download it again"
            )
        raw = file.read(length)
    try:
        header = json.loads(raw)
        header.pop("__metadata__", None)
        entries = {name: _entry(info, 8 + length) for name, info in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(
            f"{path} has a damaged header ({type(error).__name__}: {error}); download it again"
        ) from error
    _check_sizes(path, num_bytes, 8 + length, entries)
    return entries


def _entry(info: dict[str, Any], offset: int) -> TensorEntry:
    if info["dtype"] not in _DTYPES:
        raise ValueError(f"dtype {info['dtype']!r} is none of {', '.join(_DTYPES)}")
    start, stop = info["data_offsets"]
    for number in (*info["shape"], start, stop):
        if type(number) is not int or number < 0:
            raise ValueError(f"{number!r} is not a size")
    return TensorEntry(
        dtype=_DTYPES[info["dtype"]],
        shape=tuple(info["shape"]),
        start=offset + start,
        stop=offset + stop,
    )


def _check_sizes(
    path: Path, num_bytes: int, header_bytes: int, entries: dict[str, TensorEntry]
) -> None:
    """ModelLoadError unless the tensors fill the file after its header without gaps or overlap."""
    expected = header_bytes
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        wanted = entry.num_values * entry.dtype.itemsize
        if entry.stop - entry.start != wanted:
            raise ModelLoadError(
                f"{path} has a damaged header: {name!r} of shape {list(entry.shape)} needs "
                f"{wanted:,} bytes and has {entry.stop - entry.start:,}; download it again"
            )
        if entry.start != expected:
            raise ModelLoadError(
                f"{path} has a damaged header: {name!r} begins at byte {entry.start:,} of the file "
                f"but the data before it ends at byte {expected:,}; download it again"
            )
        expected = entry.stop
    if num_bytes != expected:
        what = "truncated" if num_bytes < expected else "damaged"
        raise ModelLoadError(
            f"{path} is {what}: its header announces {expected:,} bytes and the file has "
            f"{num_bytes:,}; download it again"
        )
