"""Sampling as graphs: from hidden states to new tokens, in their rows and on the host.

Reads the inputs that the forward has fetched; before a capture, the caller must have fetched inputs
of spare rows. Knows nothing about how hidden states are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import Tensor

from quire.sampling.parameters import MASKABLE
from quire.sampling.sampler import DeviceSample, SampleKind, Sampler
from quire.worker.graph_inputs import GraphInputs, SampledInputs
from quire.worker.graph_masks import GraphMasks
from quire.worker.model import Model
from quire.worker.recorder import Record, Replay
from quire.worker.result_ring import ResultRing


@dataclass(frozen=True, slots=True)
class SampleShape:
    kind: SampleKind
    num_rows: int
    is_masked: bool = False  # some rows are constrained


NUM_SHAPES_PER_BUCKET = len(SampleKind) + len(MASKABLE)  # at most


class SampleGraphs:
    """One graph for each kind of sampling and bucket of rows that was captured."""

    def __init__(
        self,
        *,
        model: Model,
        sampler: Sampler,
        inputs: GraphInputs,
        results: ResultRing,
        hidden: Tensor,  # [max_rows, E]
        record: Record,
        masks: GraphMasks,
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._inputs = inputs
        self._results = results
        self._hidden = hidden
        self._record = record
        self._masks = masks
        self._graphs: dict[SampleShape, Replay] = {}
        self._samples: dict[SampleShape, DeviceSample] = {}

    def __contains__(self, shape: SampleShape) -> bool:
        return shape in self._graphs

    def capture(self, shape: SampleShape) -> None:
        self._graphs[shape] = self._record(partial(self._run, shape))

    def replay(self, shape: SampleShape) -> DeviceSample:
        """Sample; the result is valid until the next replay."""
        self._graphs[shape]()
        return self._samples[shape]

    def _run(self, shape: SampleShape) -> None:
        inputs = self._inputs.sampled(shape.num_rows)
        sample = self._sample(shape, inputs)
        self._results.enqueue(sample.token_ids, inputs.rows, inputs.lengths)
        self._samples[shape] = sample

    def _sample(self, shape: SampleShape, inputs: SampledInputs) -> DeviceSample:
        hidden = self._hidden[: shape.num_rows]
        if shape.kind is SampleKind.GREEDY and not shape.is_masked:
            best = self._model.best_tokens(hidden)
            if best is not None:
                return DeviceSample(token_ids=best)
        logits = self._model.logits(hidden)
        if shape.is_masked:
            self._masks.apply(logits)
        return self._sampler.sample_on_device(shape.kind, logits, inputs.rows, inputs.lengths)
