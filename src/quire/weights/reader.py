"""WeightReader: what layers pull their tensors from, by canonical name.

Owns the joining of a Checkpoint with a WeightMap and the account of what was read. Knows nothing
about layers.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from quire.errors import ModelLoadError
from quire.weights.checkpoint import Checkpoint, refuse_codes
from quire.weights.weight_map import Index, Operation, WeightMap

_PIECE_VALUES = 1 << 22  # of two tensors that are compared
_LARGEST_DUMMY = 1e-3
_BAR_FROM_BYTES = 64 * 2**20  # a smaller load is over before a log reader could care


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadReport:
    """What a load used and left."""

    num_read: int  # tensors of the checkpoint
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
        worth_a_bar = checkpoint.num_bytes > _BAR_FROM_BYTES or sys.stderr.isatty()
        self._bar = tqdm(
            total=checkpoint.num_bytes,
            desc="Loading weights",
            unit="B",
            unit_scale=True,
            disable=not (use_tqdm and worth_a_bar),
            file=sys.stderr,
        )

    @property
    def bytes_read(self) -> int:
        return self._hub.bytes_read

    def stand_in(self, name: str, missing: str) -> None:
        """Let `missing` be read from where `name` is, if the checkpoint holds that alone."""
        if self._holds(name) and not self._holds(missing):
            entries = {**self._weight_map.entries, missing: self._operation(name)}
            self._weight_map = replace(self._weight_map, entries=entries)

    def name_if_other(self, name: str, than: str) -> str | None:
        """The checkpoint's name of `name`, if it holds that with other values than `than` has."""
        if not self._holds(name):
            return None
        hub_names = self.hub_names(name)
        if hub_names == self.hub_names(than):
            return None
        self._hub.names_read.update(hub_names)  # as good as read, where it is the same
        return None if self._are_equal(name, than) else ", ".join(hub_names)

    def hub_names(self, name: str) -> tuple[str, ...]:
        """The checkpoint's names of what `name` is read from."""
        return tuple(map(self._hub.resolve, self._operation(name).names()))

    def read(
        self, name: str, shape: tuple[int, ...], *, dtype: torch.dtype | None = None
    ) -> Tensor:
        """The tensor in memory of its own; `shape` is what it must have."""
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
        """Close the account: call it when every layer has pulled its parts."""
        self._bar.update(self._bar.total - self._bar.n)
        self._bar.close()
        unread = self._hub.names - self._hub.names_read
        return LoadReport(
            num_read=len(self._hub.names_read),
            bytes_read=self._hub.bytes_read,
            unused=tuple(
                sorted(n for n in unread if not self._weight_map.ignores(self._hub.in_map(n)))
            ),
        )

    def _holds(self, name: str) -> bool:
        operation = self._weight_map.operation(name)
        return operation is not None and all(map(self._hub.has, operation.names()))

    def _are_equal(self, *names: str) -> bool:
        """Whether two tensors are the same in the engine's dtype; counts as no read."""
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
    """Random weights of the right shapes, the same for a name whatever is read before it.

    They are spread as vLLM's are with ``--load-format dummy``, gains of norms and biases included:
    how fast a GPU multiplies depends on the numbers, by the power that it takes.
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
        return LoadReport(num_read=0, bytes_read=0, unused=())


class _HubReads:
    """A checkpoint under a map's prefixes, with the account of what was read."""

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
        """The name in the checkpoint; under the usual prefix if it is not there."""
        candidates = self._candidates(name)
        return next((full for full in candidates if full in self.names), candidates[0])

    def in_map(self, hub_name: str) -> str:
        """A name of the checkpoint as the map would have it."""
        return self._lost_prefix + hub_name

    def uncounted(self) -> _HubReads:
        """The same with an account of its own."""
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
    """Slices with start and stop for every dimension of `shape`; of the first some, if asked."""
    height = shape[0]
    first = slice(start, height if stop is None else min(stop, height))
    return (first, *(slice(0, size) for size in shape[1:]))


def _closest(name: str, names: Iterable[str]) -> str:
    """Names like `name`, for an error message."""
    return ", ".join(get_close_matches(name, list(names), n=3, cutoff=0.5)) or "nothing similar"
