"""Experts that are stored together come out one matrix each, whole and in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from quire.weights.expert_layouts import EveryOtherRow, PiledExperts, TurnedExperts
from quire.weights.reader import WeightReader
from quire.weights.weight_map import Operation, Source, WeightMap
from tests.fakes.checkpoints import MemoryCheckpoint

EXPERTS = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))  # out 4, in 5


def reader_of(operation: Operation, stored: Tensor) -> WeightReader:
    checkpoint = MemoryCheckpoint({"layer.0.w": stored})
    weight_map = WeightMap(entries={"layers.*.w": operation})
    return WeightReader(checkpoint, weight_map, torch.float32)


NAME = Source("layer.*.w")


@pytest.mark.parametrize(
    ("operation", "stored"),
    [
        (PiledExperts(NAME, 3), EXPERTS.flatten(0, 1)),
        (TurnedExperts(NAME), EXPERTS.transpose(1, 2)),
        (TurnedExperts(PiledExperts(NAME, 3)), EXPERTS.transpose(1, 2).flatten(0, 1)),
        (EveryOtherRow(NAME, 0), torch.stack((EXPERTS, -EXPERTS), 2).flatten(1, 2)),
        (EveryOtherRow(NAME, 1), torch.stack((-EXPERTS, EXPERTS), 2).flatten(1, 2)),
    ],
    ids=["piled", "turned", "piled-turned", "gate", "up"],
)
def test_experts_are_read_from_their_layout(operation: Operation, stored: Tensor) -> None:
    reader = reader_of(operation, stored)
    assert torch.equal(reader.read("layers.0.w", (3, 4, 5)), EXPERTS)
    index = (slice(1, 3), slice(1, 3), slice(2, 5))
    part = operation.at("0").read(MemoryCheckpoint({"layer.0.w": stored}), index)
    assert torch.equal(part, EXPERTS[index])


def test_biases_of_gate_and_up_in_turn() -> None:
    biases = EXPERTS[:, :, 0]
    reader = reader_of(EveryOtherRow(NAME, 1), torch.stack((-biases, biases), 2).flatten(1))
    assert torch.equal(reader.read("layers.0.w", (3, 4)), biases)


def test_what_cannot_be_the_layout_is_refused() -> None:
    checkpoint = MemoryCheckpoint({"w": torch.zeros(10, 2)})
    with pytest.raises(ValueError, match="its 10 rows are not those of 3 experts"):
        PiledExperts(Source("w"), 3).shape(checkpoint)
    with pytest.raises(ValueError, match="3 rows, which cannot be gate and up"):
        EveryOtherRow(Source("w"), 0).shape(MemoryCheckpoint({"w": torch.zeros(2, 3, 4)}))
