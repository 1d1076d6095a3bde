"""WeightReader: gives layers their tensors by canonical name.

Joins a Checkpoint with a WeightMap and records what was read. Knows nothing
about layers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from quire.errors import ModelLoadError
from quire.standard_streams import Stderr, has_onlooker
from quire.weights.checkpoint import Checkpoint, refuse_codes
from quire.weights.weight_map import Index, Operation, WeightMap

_PIECE_VALUES = 1 << 22  # values compared at a time
_LARGEST_DUMMY = 1e-3
_BAR_FROM_BYTES = 64 * 2**20  # a smaller load is over before a log reader could care


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """Which tensors a load read and which it left."""

    bytes_read: int  # as stored
    unused: tuple[str, ...]  # hub names that nothing read and the map does not ignore


class TensorReader(Protocol):
    """Tensors by canonical name, in the engine's dtype and on its device.

    `dtype` is for the few tensors that must not be rounded to the engine's.
    """

    @property
    def device(self) -> torch.device: ...

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor: ...

    def report(self) -> LoadReport: ...


class WeightReader:
    """Reads a checkpoint through a weight map."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        weight_map: WeightMap,
        dtype: torch.dtype,
        device: torch.device | str = "cpu",
        *,
        use_tqdm: bool = False,
    ) -> None:
        self._hub = _HubReads(checkpoint, weight_map)
        self._weight_map = weight_map
        self._dtype = dtype
        self.device = torch.device(device)
        worth_a_bar = checkpoint.num_bytes > _BAR_FROM_BYTES or has_onlooker()
        self._bar = tqdm(
            total=checkpoint.num_bytes,
            desc="Loading weights",
            unit="B",
            unit_scale=True,
            disable=not (use_tqdm and worth_a_bar),
            dynamic_ncols=True,
            file=Stderr(),
        )

    @property
    def bytes_read(self) -> int:
        return self._hub.bytes_read

    def stand_in(self, name: str, missing: str) -> None:
        """Read `missing` from where `name` is stored, if the checkpoint holds only `name`."""
        if self._holds(name) and not self._holds(missing):
            entries = {**self._weight_map.entries, missing: self._operation(name)}
            self._weight_map = replace(self._weight_map, entries=entries)

    def name_if_other(self, name: str, than: str) -> str | None:
        """The checkpoint's name of `name`, if it holds it with values that differ from `than`'s."""
        if not self._holds(name):
            return None
        hub_names = self.hub_names(name)
        if hub_names == self.hub_names(than):
            return None
        self._hub.names_read.update(hub_names)  # counts as read if it is the same
        return None if self._are_equal(name, than) else ", ".join(hub_names)

    def hub_names(self, name: str) -> tuple[str, ...]:
        """The names of the checkpoint tensors that `name` is read from."""
        return tuple(map(self._hub.resolve, self._operation(name).names()))

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """A copy of the tensor; ModelLoadError unless its shape is `shape`."""
        operation = self.check(name, shape)
        before = self._hub.bytes_read
        stored = operation.read(self._hub, _index(shape))
        self._bar.update(self._hub.bytes_read - before)
        own = torch.empty(shape, dtype=dtype or self._dtype, device=self.device)
        return own.copy_(stored)

    def check(self, name: str, shape: tuple[int, ...]) -> Operation:
        """How `name` is stored; ModelLoadError if it is missing or has another shape."""
        operation = self._operation(name)
        where = f"tensor {', '.join(self.hub_names(name)[:2])} of the checkpoint (for {name})"
        try:
            stored = operation.shape(self._hub)
        except ValueError as error:
            raise ModelLoadError(f"{where} does not match the config: {error}") from error
        if stored != shape:
            raise ModelLoadError(
                f"{where} has shape {list(stored)} and the config asks for {list(shape)}; "
                "config.json and the weights belong to different models"
            )
        return operation

    def report(self) -> LoadReport:
        """Close the progress bar and report what was read; call it after all layers have loaded."""
        self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
        unread = self._hub.names - self._hub.names_read
        return LoadReport(
            bytes_read=self._hub.bytes_read,
            unused=tuple(
                sorted(n for n in unread if not self._weight_map.ignores(self._hub.in_map(n)))
            ),
        )

    def _holds(self, name: str) -> bool:
        operation = self._weight_map.operation(name)
        return operation is not None and all(map(self._hub.has, operation.names()))

    def _are_equal(self, *names: str) -> bool:
        """Whether two tensors are equal in the engine's dtype; not recorded as reads."""
        hub = self._hub.uncounted()
        operations = [self._operation(name) for name in names]
        shape, other_shape = (operation.shape(hub) for operation in operations)
        if shape != other_shape:
            return False
        height = max(_PIECE_VALUES // math.prod(shape[1:]), 1)
        return all(
            torch.equal(*(one.read(hub, piece).to(self._dtype) for one in operations))
            for start in range(0, shape[0], height)
            for piece in [_index(shape, start, start + height)]
        )

    def _operation(self, name: str) -> Operation:
        operation = self._weight_map.operation(name)
        if operation is None:
            raise ModelLoadError(
                f"the weight map of this architecture has no entry for {name!r}; "
                f"the closest: {_closest(name, self._weight_map.entries)}"
            )
        for hub_name in operation.names():
            if not self._hub.has(hub_name):
                raise ModelLoadError(
                    f"the checkpoint has no tensor {self._hub.resolve(hub_name)!r} (for {name}); "
                    f"the closest it has: {_closest(hub_name, self._hub.names)}"
                )
        return operation


class DummyReader:
    """Random weights of the right shapes; a tensor depends on its name and the seed only.

    They have the distribution of vLLM's ``--load-format dummy``, norm gains and biases included,
    for comparable benchmarks: a GPU's power draw, and so its speed, depends on the values.
    """

    def __init__(
        self, dtype: torch.dtype, device: torch.device | str = "cpu", seed: int = 0
    ) -> None:
        self._dtype = dtype
        self.device = torch.device(device)
        self._seed = seed

    def stand_in(self, name: str, missing: str) -> None:
        pass

    def name_if_other(self, name: str, than: str) -> str | None:
        return None

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor:
        tensor = torch.empty(shape, dtype=dtype or self._dtype, device=self.device)
        return tensor.uniform_(-_LARGEST_DUMMY, _LARGEST_DUMMY, generator=self.generator_of(name))

    def generator_of(self, name: str) -> torch.Generator:
        digest = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        generator = torch.Generator(self.device)
        return generator.manual_seed(int.from_bytes(digest[:7], "little"))

    def report(self) -> LoadReport:
        return LoadReport(bytes_read=0, unused=())


class _HubReads:
    """A checkpoint read under a map's prefixes; records what was read."""

    def __init__(self, checkpoint: Checkpoint, weight_map: WeightMap) -> None:
        self._checkpoint = checkpoint
        self._weight_map = weight_map
        self.names = checkpoint.names()
        self._lost_prefix = weight_map.lost_prefix(self.names)
        self.names_read: set[str] = set()
        self.bytes_read = 0

    def has(self, name: str) -> bool:
        return any(full in self.names for full in self._candidates(name))

    def resolve(self, name: str) -> str:
        """The full name in the checkpoint; with the first prefix if no candidate is in it."""
        candidates = self._candidates(name)
        return next((full for full in candidates if full in self.names), candidates[0])

    def in_map(self, hub_name: str) -> str:
        """A checkpoint's name as the map spells it."""
        return self._lost_prefix + hub_name

    def uncounted(self) -> _HubReads:
        """Another view of this checkpoint, which records its reads separately."""
        return _HubReads(self._checkpoint, self._weight_map)

    def shape(self, name: str) -> tuple[int, ...]:
        full = self.resolve(name)
        refuse_codes(full, self._checkpoint.dtype(full))
        return self._checkpoint.shape(full)

    def packed_shape(self, name: str) -> tuple[int, ...]:
        return self._checkpoint.shape(self.resolve(name))

    def read(self, name: str, index: Index) -> Tensor:
        full = self.resolve(name)
        tensor = self._checkpoint.read(full, index)
        self.names_read.add(full)
        self.bytes_read += tensor.nbytes
        return tensor

    def _candidates(self, name: str) -> list[str]:
        name = name.removeprefix(self._lost_prefix)
        return [prefix + name for prefix in self._weight_map.prefixes]


def _index(shape: tuple[int, ...], start: int = 0, stop: int | None = None) -> Index:
    """A slice per dimension of `shape`; `start` and `stop` limit the first dimension."""
    height = shape[0]
    first = slice(start, height if stop is None else min(stop, height))
    return (first, *(slice(0, size) for size in shape[1:]))


def _closest(name: str, names: Iterable[str]) -> str:
    """Names like `name`, for an error message."""
    return ", ".join(get_close_matches(name, list(names), n=3, cutoff=0.5)) or "nothing similar"
