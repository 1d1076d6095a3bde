"""Layouts in which checkpoints store the experts of a layer together, as weight map operations.

Canonical experts are [experts, out, in], and their biases [experts, out]. Knows no family.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from quire.weights.weight_map import HubTensors, Index, Operation


@dataclass(frozen=True, slots=True)
class PiledExperts:
    """The experts' matrices stacked along the rows of one matrix."""

    of: Operation
    num_experts: int

    def at(self, layer: str) -> PiledExperts:
        return replace(self, of=self.of.at(layer))

    def names(self) -> tuple[str, ...]:
        return self.of.names()

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        rows, columns = self.of.shape(tensors)
        if rows % self.num_experts:
            raise ValueError(f"its {rows} rows are not those of {self.num_experts} experts")
        return (self.num_experts, rows // self.num_experts, columns)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        experts, rows, columns = index
        _, height, _ = self.shape(tensors)
        whole = slice(experts.start * height, experts.stop * height)
        piled = self.of.read(tensors, (whole, columns))
        return piled.unflatten(0, (-1, height))[:, rows]


@dataclass(frozen=True, slots=True)
class TurnedExperts:
    """The matrices of all experts, stored as [experts, in, out]."""

    of: Operation

    def at(self, layer: str) -> TurnedExperts:
        return TurnedExperts(self.of.at(layer))

    def names(self) -> tuple[str, ...]:
        return self.of.names()

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        experts, columns, rows = self.of.shape(tensors)
        return (experts, rows, columns)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        experts, rows, columns = index
        return self.of.read(tensors, (experts, columns, rows)).transpose(1, 2)


@dataclass(frozen=True, slots=True)
class EveryOtherRow:
    """Rows ``first``, ``first + 2``, ... of each expert, where gate and up rows alternate."""

    of: Operation
    first: int

    def at(self, layer: str) -> EveryOtherRow:
        return replace(self, of=self.of.at(layer))

    def names(self) -> tuple[str, ...]:
        return self.of.names()

    def shape(self, tensors: HubTensors) -> tuple[int, ...]:
        experts, rows, *columns = self.of.shape(tensors)
        if rows % 2:
            raise ValueError(f"its experts have {rows} rows, which cannot be gate and up in turn")
        return (experts, rows // 2, *columns)

    def read(self, tensors: HubTensors, index: Index) -> Tensor:
        experts, rows, *columns = index
        both = self.of.read(tensors, (experts, slice(2 * rows.start, 2 * rows.stop), *columns))
        return both[:, self.first :: 2]
