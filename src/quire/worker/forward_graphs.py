"""Forwards as graphs: from a step's inputs to the hidden states of the rows that sample.

Each graph begins by fetching the inputs that were sent last. So the caller sends inputs, replays or
captures, and confirms. Before a capture it must send inputs of spare rows, since a capture runs
once. Knows nothing about sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from quire.batch import Batch
from quire.worker.graph_batches import GraphBatches
from quire.worker.graph_inputs import GraphInputs
from quire.worker.model import Model
from quire.worker.recorder import Record, Replay


@dataclass(frozen=True, slots=True)
class DecodeShape:
    """A decode step: one token of each of so many rows."""

    num_rows: int
    is_shared: bool = False  # some of the rows begin with the same blocks

    @property
    def num_tokens(self) -> int:
        return self.num_rows


@dataclass(frozen=True, slots=True)
class MixedShape:
    """A mixed step: so many tokens of any rows."""

    num_tokens: int


Shape = DecodeShape | MixedShape


class ForwardGraphs:
    """The forward graphs; they leave hidden states [S, E] in the first lines of ``hidden``."""

    def __init__(
        self,
        *,
        model: Model,
        batches: GraphBatches,
        inputs: GraphInputs,
        hidden: Tensor,  # [max_rows, E]
        record: Record,
    ) -> None:
        self._model = model
        self._batches = batches
        self._inputs = inputs
        self._hidden = hidden
        self._record = record
        self._graphs: dict[Shape, Replay] = {}

    def __contains__(self, shape: Shape) -> bool:
        return shape in self._graphs

    def capture(self, shape: Shape) -> None:
        self._graphs[shape] = self._record(partial(self._run, shape))

    def replay(self, shape: Shape) -> None:
        self._graphs[shape]()

    def _run(self, shape: Shape) -> None:
        if isinstance(shape, DecodeShape):
            num_bytes = self._inputs.decode_bytes(shape.num_rows, is_shared=shape.is_shared)
            self._inputs.ring.enqueue_fetch(num_bytes)
            batch = self._decode_batch(shape)
        else:
            self._inputs.ring.enqueue_fetch(self._inputs.mixed_bytes(shape.num_tokens))
            inputs = self._inputs.mixed(shape.num_tokens)
            batch = self._batches.mixed(inputs, shape.num_tokens)
        hidden = self._model.forward(batch)
        self._hidden[: len(hidden)].copy_(hidden)

    def _decode_batch(self, shape: DecodeShape) -> Batch:
        shared = self._inputs.shared(shape.num_rows) if shape.is_shared else None
        return self._batches.decode(self._inputs.sampled(shape.num_rows), shared)
