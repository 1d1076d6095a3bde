"""WeightMap: which tensors of a checkpoint make up each canonical tensor, as data.

Owns the canonical-to-hub names and the few layouts in which checkpoints store things. Knows nothing
about files, dtypes or devices.

Canonical names: ``embedding.weight``, ``layers.*.attention.{q,k,v,o}.weight``,
``layers.*.mlp.{gate,up,down}.weight``, ``layers.*.moe.router.weight``,
``layers.*.moe.experts.{gate,up,down}.weight`` (stacked: expert, out, in),
``layers.*.norm1.weight``, ``final_norm.weight``, ``head.weight``, and ``.bias`` for ``.weight``
where there is one. ``*`` is the layer's number, on both sides.

An operation works on the canonical tensor's index: one slice with start and stop per dimension.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import Protocol

import torch
from torch import Tensor

Index = tuple[slice, ...]
_LAYER = re.compile(r"(?<=\.)\d+(?=\.)")  # the number in layers.7.norm1.weight


class HubTensors(Protocol):
    """What operations read from: tensors by the names that the map gives them."""

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a plain tensor; a ModelLoadError if its dtype is a quantized one."""
        ...

    def packed_shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor of any dtype, such as packed weights and their scales."""
        ...

    def read(self, name: str, index: Index) -> Tensor: ...


class Operation(Protocol):
    """How one canonical tensor is stored. Frozen data."""

    def at(self, layer: str) -> Operation:
        """This operation for one layer: `layer` in place of ``*``."""
        ...

    def names(self) -> tuple[str, ...]:
        """The hub tensors it reads."""
        ...

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        """The canonical shape that the checkpoint holds; ValueError if it cannot be this layout."""
        ...

    def read(self, tensors: HubTensors, index: Index) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Source:
    """A hub tensor as it is."""

    name: str

    def at(self, layer: str) -> Source:
        return Source(self.name.replace("*", layer))

    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        return tensors.shape(self.name)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        return tensors.read(self.name, index)


@dataclass(frozen=True, slots=True)
class Transposed:
    """A matrix stored as (in, out), as GPT-2's Conv1D does."""

    of: Operation | str

    def at(self, layer: str) -> Transposed:
        return Transposed(_operation(self.of).at(layer))

    def names(self) -> tuple[str, ...]:
        return _operation(self.of).names()

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        return _operation(self.of).shape(tensors)[::-1]

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        return _operation(self.of).read(tensors, index[::-1]).t()


@dataclass(frozen=True, slots=True)
class Fused:
    """`length` rows from `offset` of a tensor in which several parts lie one after the other.

    To cut a Conv1D matrix, transpose first: ``Fused(Transposed(name), offset, length)``.
    """

    of: Operation | str
    offset: int
    length: int
    total: int | None = None  # rows of the whole tensor, checked where it is known

    @classmethod
    def split(cls, of: Operation | str, *lengths: int) -> tuple[Fused, ...]:
        """Every part of a tensor that consists of parts of these lengths and nothing else."""
        offsets = accumulate(lengths, initial=0)
        return tuple(
            cls(of, offset, length, sum(lengths))
            for offset, length in zip(offsets, lengths, strict=False)
        )

    def at(self, layer: str) -> Fused:
        return replace(self, of=_operation(self.of).at(layer))

    def names(self) -> tuple[str, ...]:
        return _operation(self.of).names()

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        rows, *rest = _operation(self.of).shape(tensors)
        if self.offset + self.length > rows or self.total not in (None, rows):
            raise ValueError(
                f"it has {rows} rows and its parts need {self.total or self.offset + self.length}"
            )
        return (self.length, *rest)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        rows = slice(self.offset + index[0].start, self.offset + index[0].stop)
        return _operation(self.of).read(tensors, (rows, *index[1:]))


@dataclass(frozen=True, slots=True)
class FusedHeads:
    """The q, k or v part of a fused qkv tensor.

    Layouts: "concatenated": all q heads, all k heads, all v heads. "per_kv_group": for each KV head
    its query heads, then its k, then its v. "per_head": the same with as many KV heads as query
    heads.
    """

    of: Operation | str
    part: str  # "q", "k" or "v"
    num_heads: int
    num_kv_heads: int
    head_dim: int
    layout: str = "concatenated"

    def __post_init__(self) -> None:
        assert self.part in ("q", "k", "v"), self.part
        assert self.layout in ("concatenated", "per_head", "per_kv_group"), self.layout
        assert self.layout != "per_head" or self.num_heads == self.num_kv_heads
        assert self.num_heads % self.num_kv_heads == 0

    @classmethod
    def split(
        cls,
        of: Operation | str,
        num_heads: int,
        num_kv_heads: int,
        head_dim: int,
        layout: str = "concatenated",
    ) -> tuple[FusedHeads, FusedHeads, FusedHeads]:
        """The q, k and v parts."""
        q, k, v = (cls(of, part, num_heads, num_kv_heads, head_dim, layout) for part in "qkv")
        return q, k, v

    def at(self, layer: str) -> FusedHeads:
        return replace(self, of=_operation(self.of).at(layer))

    def names(self) -> tuple[str, ...]:
        return _operation(self.of).names()

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        rows, *rest = _operation(self.of).shape(tensors)
        wanted = (self.num_heads + 2 * self.num_kv_heads) * self.head_dim
        if rows != wanted:
            raise ValueError(
                f"it has {rows} rows and {self.num_heads} query heads and {self.num_kv_heads} "
                f"KV heads of size {self.head_dim} need {wanted}"
            )
        return (self._num_part_heads * self.head_dim, *rest)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        operation = _operation(self.of)
        runs = [
            operation.read(tensors, (rows, *index[1:]))
            for rows in _cut(self._runs(), index[0].start, index[0].stop)
        ]
        return runs[0] if len(runs) == 1 else torch.cat(runs)

    def _runs(self) -> Iterator[tuple[int, int]]:
        """(start, length) of the part's rows in the fused tensor, in canonical order."""
        place = "qkv".index(self.part)
        if self.layout == "concatenated":
            first = (0, self.num_heads, self.num_heads + self.num_kv_heads)[place]
            yield first * self.head_dim, self._num_part_heads * self.head_dim
            return
        group = self.num_heads // self.num_kv_heads
        first, length = ((0, group), (group, 1), (group + 1, 1))[place]
        for kv_head in range(self.num_kv_heads):
            start = kv_head * (group + 2) + first
            yield start * self.head_dim, length * self.head_dim

    @property
    def _num_part_heads(self) -> int:
        return self.num_heads if self.part == "q" else self.num_kv_heads


@dataclass(frozen=True, slots=True)
class StackedExperts:
    """One matrix per expert, under names with ``{expert}``, stacked along a new first dimension."""

    of: Operation | str
    num_experts: int

    def at(self, layer: str) -> StackedExperts:
        return replace(self, of=_operation(self.of).at(layer))

    def names(self) -> tuple[str, ...]:
        return tuple(
            name.replace("{expert}", str(expert))
            for expert in range(self.num_experts)
            for name in _operation(self.of).names()
        )

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        shapes = {
            _operation(self.of).shape(_OneExpert(tensors, expert))
            for expert in range(self.num_experts)
        }
        if len(shapes) != 1:
            raise ValueError(f"its experts differ in shape: {sorted(shapes)}")
        return (self.num_experts, *shapes.pop())

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        operation, (experts, *matrix) = _operation(self.of), index
        stacked: Tensor | None = None
        for place, expert in enumerate(range(experts.start, experts.stop)):
            one = operation.read(_OneExpert(tensors, expert), tuple(matrix))
            if stacked is None:
                stacked = one.new_empty(experts.stop - experts.start, *one.shape)
            stacked[place] = one
        assert stacked is not None, f"no experts in {experts}"
        return stacked


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightMap:
    """Canonical names -> operations, for all layers at once."""

    entries: Mapping[str, Operation]
    # Hub names (with * and ?) that are known not to be needed.
    ignored: tuple[str, ...] = ()
    # A hub name is looked up with each of these before it, in this order: checkpoints saved from
    # the inner or the outer class differ in it.
    prefixes: tuple[str, ...] = ("",)
    # A prefix of this map's names that a checkpoint saved from the inner class lacks in all of its
    # names. One that lacks it in some names only is damaged.
    optional_prefix: str = ""

    def __post_init__(self) -> None:
        for canonical, operation in self.entries.items():
            per_layer = "*" in canonical
            assert all(("*" in name) == per_layer for name in operation.names()), canonical

    def operation(self, canonical: str) -> Operation | None:
        """How `canonical` (with a layer's number) is stored, or None if the map has no entry."""
        if canonical in self.entries:
            return self.entries[canonical]
        layer = _LAYER.search(canonical)
        if layer is None:
            return None
        pattern = f"{canonical[: layer.start()]}*{canonical[layer.end() :]}"
        operation = self.entries.get(pattern)
        return None if operation is None else operation.at(layer.group())

    def lost_prefix(self, hub_names: Collection[str]) -> str:
        """The optional prefix if no name of the checkpoint has it but some match without it."""
        prefix = self.optional_prefix
        if any(name.startswith(prefix) for name in hub_names):
            return ""
        mapped = [name for operation in self.entries.values() for name in operation.names()]
        rests = {
            name.removeprefix(prefix).partition(".")[0]
            for name in mapped
            if name.startswith(prefix)
        }
        return prefix if any(name.partition(".")[0] in rests for name in hub_names) else ""

    def ignores(self, hub_name: str) -> bool:
        return any(fnmatchcase(hub_name, pattern) for pattern in self.ignored)


@dataclass(frozen=True, slots=True)
class _OneExpert:
    """The tensors of one expert: its number in place of ``{expert}``."""

    tensors: HubTensors
    expert: int

    def shape(self, name: str) -> tuple[int, ...]:
        return self.tensors.shape(name.replace("{expert}", str(self.expert)))

    def packed_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors.packed_shape(name.replace("{expert}", str(self.expert)))

    def read(self, name: str, index: Index) -> Tensor:
        return self.tensors.read(name.replace("{expert}", str(self.expert)), index)


def _operation(of: Operation | str) -> Operation:
    return Source(of) if isinstance(of, str) else of


def _cut(runs: Iterator[tuple[int, int]], start: int, stop: int) -> Iterator[slice]:
    """Rows `start` to `stop` of the runs laid end to end, as slices of where the runs lie."""
    done = 0
    for place, length in runs:
        low, high = max(start - done, 0), min(stop - done, length)
        if low < high:
            yield slice(place + low, place + high)
        done += length
